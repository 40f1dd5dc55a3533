"""Settings: the defaults, what is wrong by its name, and secrets never shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flux_api.errors import BadSetting
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.offered import offered_models
from flux_api.models.toml_file import load_models
from flux_api.setting_values import unknown
from flux_api.settings import Settings
from tests.support.servers import QUIET, ROOT, SETTINGS, free_port, run_api

SOURCE = (ROOT / "flux_api" / "settings.py").read_text()
NAMES = sorted(set(re.findall(r'"((?:FLUX_|FILE_|MODEL_)[A-Z0-9_]+)"', SOURCE)))

LONG = "9" * 5000
NUMBERS = ["-1", "many", "1e3", "0x10", "1_000", "\u0661", "nan", "inf", LONG, "1.5.5"]
URLS = [
    *("files.example", "ftp://a/", "http://", "https://a/?q=hidden", "//a", "http://["),
    *("http://me:hidden@a/", "http://a:port/", "http://a:0/", "http://a/#hidden"),
    *(
        "javascript:1",
        "http://a b/",
        "http://a\\b/",
        "http://a:70000",
        "http://\u3042/",
    ),
]
WRONG = {
    "FILE_SERVER": URLS,
    "FILE_SERVER_PUBLIC_URL": URLS,
    "FILE_SERVER_UPLOAD_TOKEN": [
        "hidden token",
        "hidden\ttoken",
        "hidden\u3042",
        "h" * 5000,
    ],
    "FILE_SERVER_TOKEN": ["hidden token", "hidden\u3042", "h" * 5000],
    "FLUX_MODEL_LIKE": ["no-such-set", "/etc", "tiny"],
    "FLUX_COMPONENTS": ["/no/such/folder", "/dev/null"],
    "FLUX_MODEL": ["no-such-set", "../etc", "tiny,other"],
    "FLUX_MODELS": ["tiny,no-such-set", "no such set"],
    "FLUX_STRICT_MODELS": ["yes", "2", "true"],
    "MODEL_INFO": ["/no/such/file.toml", "/", "\0"],
    "FLUX_MAX_LOADED": [*NUMBERS, "0", "17"],
    "FLUX_LORA_DIR": ["/no/such/folder", "/dev/null"],
    "FLUX_QUANTIZATION": ["int2", "NF4"],
    "FLUX_OFFLOAD": ["disk", "1"],
    "FLUX_MEMORY": ["much"],
    "FLUX_PERFORMANCE": ["fast", "EXACT"],
    "FLUX_STATE_DIR": ["/dev/null", "~nobody-here/state"],
    "FLUX_MAX_UPLOAD_MB": [*NUMBERS, "0", "4097", "64MB"],
    "FLUX_INSTANCE": [*NUMBERS, "1000", "g0"],
    "FLUX_TRUSTED_PROXIES": [*NUMBERS, "11", "*"],
    "FLUX_MAX_QUEUE": [*NUMBERS, "0", "1001"],
    "FLUX_MAX_WATCHERS": [*NUMBERS, "1001"],
    "FLUX_MAX_PER_CALLER": [*NUMBERS, "1001"],
    "FLUX_BATCH_TOKENS": [*NUMBERS, "1000001"],
    "FLUX_STEP_TIMEOUT": [*NUMBERS, "0", "0.4", "86401"],
    "FLUX_REQUEST_TIMEOUT": [*NUMBERS, "0", "0.9", "86401"],
    "FLUX_API_KEYS": ["hidden", "a:hidden-12 3", "a:short-h", ":hidden-12", ","],
    "FLUX_API_KEYS_FILE": ["/no/such/file", "/", "/dev/null", "~nobody-here/keys"],
    "FILE_SERVER_UPLOAD_TOKEN_FILE": ["/no/such/file", "/", "/dev/null"],
    "FLUX_BACKEND": ["Ray", "remote"],
    "FLUX_PROMPT_CACHE_MB": [*NUMBERS, "65537"],
    "FLUX_LORA_CACHE_MB": [*NUMBERS, "65537"],
    "FLUX_TRUSTED_HOSTS": ["gpu.lan:80", "http://a", "a b", "*.a", ","],
    "FLUX_CORS_ORIGINS": [
        *("example.org", "https://a/path", "https://A", "null", "*,x", "https://a,"),
        *("http://", "app://", "file:///home", "://a", "app:obsidian.md"),
    ],
    "FLUX_ALLOW_PRIVATE_URLS": ["yes", "2"],
    "FLUX_ALLOW_PRIVATE_NETS": ["10.0.0.0/33", "10.0.0.1/8", "lan", "10.0.0.0/8,"],
    "FLUX_ADMIN_KEYS": ["hidden", "a:hidden-12 3", "a:short-h", ","],
    "FLUX_IDLE_UNLOAD": [*NUMBERS, "10081"],
    "FLUX_BFL_MODELS": ["flux-dev", "dev=tiny", "flux-dev=", "flux-dev=no-such-set"],
    "FLUX_WEBHOOK_HOSTS": ["https://a", "a b", "gpu.lan:80", ","],
    "FLUX_RESULTS_MB": [*NUMBERS, "65537"],
    "FLUX_DECODED_MB": [*NUMBERS, "63", "65537"],
    "FLUX_BODY_TIMEOUT": [*NUMBERS, "0", "3601"],
    "FLUX_C2PA_CERT": ["/no/such/file", "/"],
    "FLUX_C2PA_KEY": ["/no/such/file", "/"],
    "FLUX_C2PA_TIMESTAMP_URL": URLS,
    "FLUX_FILTER": ["no function", "a:b:c", "ftp://a/", "http://me:hidden@a/", "a:1"],
    "FLUX_FILTER_TIMEOUT": [*NUMBERS, "0", "601"],
    "FLUX_FILTER_FAIL": ["shut", "Open"],
    "FLUX_METADATA": ["all", "None"],
    "FLUX_METRICS_BIND": [
        *("9100", "lan:9100", "127.0.0.1:0", "::1:9100", "1.2.3.4:x"),
        "127.0.0.1:65536",
    ],
    "FLUX_LOG_LEVEL": ["loud", "INFO"],
    "FLUX_LOG_PROMPTS": ["yes", "-1"],
}


SECRETS = (
    *("FILE_SERVER_UPLOAD_TOKEN", "FILE_SERVER_TOKEN"),
    *("FLUX_API_KEYS", "FLUX_ADMIN_KEYS"),
)


def refuse(environ):
    """The complaint about ``environ``."""
    with pytest.raises(BadSetting) as caught:
        offered_models(Settings.from_env(environ))
    return str(caught.value)


def test_every_setting_has_wrong_values_here():
    assert sorted(WRONG) == NAMES
    assert len(NAMES) >= len(Settings.model_fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in WRONG.items() for value in values],
    ids=lambda text: repr(text)[:40],
)
def test_a_wrong_value_is_one_line_with_its_name(name, value):
    message = refuse({name: value})
    assert message.startswith(name)
    assert message.isprintable()
    assert len(message) < 600
    assert "hidden" not in message
    if name in SECRETS or set(value) & set("@?#:"):
        return
    shown = repr(value[:200])
    if name.endswith("_MODELS") and "no-such-set" in value.replace(" ", "-"):
        shown = "'no"
    assert shown in message


@pytest.mark.parametrize("name", [n for n in NAMES if set(NUMBERS) < set(WRONG[n])])
def test_numbers_up_to_the_wrong_ones_are_taken(name):
    field = next(key for key, f in Settings.model_fields.items() if f.alias == name)
    wrong = sorted(
        int(text) for text in WRONG[name] if re.fullmatch("-?[0-9]{,9}", text)
    )
    for number in (wrong[-2] + 1, wrong[-1] - 1):
        settings = Settings.from_env({name: str(number)})
        assert getattr(settings, field) == number


@pytest.mark.parametrize("name", NAMES)
def test_unset_empty_and_blank_are_the_same(name):
    assert Settings.from_env({name: ""}) == Settings.from_env({})
    assert Settings.from_env({name: "  "}) == Settings.from_env({})


def test_the_defaults_are_the_documented_ones():
    assert Settings.from_env({}) == Settings()


@pytest.mark.parametrize(
    "wrong",
    [{"max_queue": True}, {"max_queue": 0}, {"step_timeout": "1_0"}, {"queue": 1}],
    ids=str,
)
def test_a_constructor_is_as_strict_as_the_environment(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_settings_stay_as_they_are():
    with pytest.raises(ValidationError):
        Settings().max_queue = 3


@pytest.mark.parametrize(
    ("written", "address"),
    [("127.0.0.1:1", ("127.0.0.1", 1)), ("[::1]:65535", ("::1", 65535))],
)
def test_every_port_may_have_the_numbers(written, address):
    settings = Settings.from_env({"FLUX_METRICS_BIND": written})
    assert settings.metrics_address == address


def test_the_first_offered_set_is_the_default_one():
    assert Settings.from_env({"FLUX_MODELS": "a, b"}).model == "a"
    assert Settings.from_env({"FLUX_MODELS": "a", "FLUX_MODEL": "b"}).model == "b"


def test_keys_may_come_from_both_variables(tmp_path):
    (tmp_path / "keys").write_text("b:12345678-b\n")
    environ = {"FLUX_API_KEYS_FILE": str(tmp_path / "keys")}
    names = [key.name for key in Settings.from_env(environ).api_keys]
    environ["FLUX_API_KEYS"] = "a:12345678-a"
    names += [key.name for key in Settings.from_env(environ).api_keys]
    assert names == ["b", "a", "b"]


def test_secrets_do_not_show_themselves():
    settings = Settings.from_env(
        {
            "FILE_SERVER_UPLOAD_TOKEN": "a-secret-token",
            "FLUX_API_KEYS": "alice:a-secret-key",
        }
    )
    assert "secret" not in repr(settings)


def test_wrong_model_files_are_named(tmp_path):
    for number, text in enumerate(["not toml [", "tiny = 3", "\0", "[a]\nb = 1"]):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        message = refuse({"MODEL_INFO": str(path)})
        assert message.startswith(f"MODEL_INFO={str(path)!r}")
        assert message.isprintable()
    assert load_models(None, MODEL_INFO)


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.text(max_size=60))
def test_any_text_is_a_value_or_a_complaint(name, text):
    try:
        settings = Settings.from_env({name: text})
    except BadSetting as error:
        assert str(error).startswith(name)
        assert "\n" not in str(error)
    else:
        assert isinstance(settings, Settings)


def start(command, **settings):
    """The exit status and what was printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS)}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env | QUIET | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLUX_MAX_QUEUE", "lots"),
        ("FLUX_MAX_WATCHERS", LONG[:50]),
        ("FLUX_REQUEST_TIMEOUT", "soon"),
        ("FLUX_LOG_LEVEL", "loud"),
        ("FLUX_MODEL", "no-such-set"),
        ("FLUX_TRUSTED_PROXIES", "-1"),
        ("MODEL_INFO", "/no/such/file"),
        ("FILE_SERVER", "http://[fe80::1%eth0]:8010"),
    ],
)
def test_gunicorn_stops_with_one_clear_line(name, value):
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
    status, output = start(
        [*command, "-b", f"127.0.0.1:{free_port()}", "wsgi:app"],
        FILE_SERVER_UPLOAD_TOKEN="never-shown",
        **{name: value},
    )
    assert status == 3
    named = [line for line in output.splitlines() if name in line]
    assert len(named) == 1
    assert named[0].startswith(f"flux_api: {name}={value!r}: ")
    assert "Traceback" not in output
    assert "never-shown" not in output
    # One worker was tried, and no other after it.
    assert output.count("Booting worker") == 1


def test_serve_starts_neither_and_says_why(tmp_path):
    api, files = free_port(), free_port()
    status, output = start(
        [sys.executable, "-m", "flux_api", "serve"]
        + ["--bind", f"127.0.0.1:{api}", "--files-bind", f"127.0.0.1:{files}"],
        FLUX_MAX_QUEUE="lots",
        BEARER_TOKEN="x",
        STORAGE_URL=f"file://{tmp_path}",
    )
    assert status == 2
    assert output.count("flux-api: FLUX_MAX_QUEUE='lots': a whole number") == 1
    assert "Traceback" not in output


def test_the_environment_is_read_in_one_place():
    found = []
    for path in sorted((ROOT / "flux_api").rglob("*.py")):
        text = path.read_text()
        if re.search(r"os\.(environ\b|getenv)", text):
            found.append(path.name)
    # The factory hands it on; others set what libraries look for in it.
    assert "factory.py" in found
    libraries = {"libraries.py", "model_sets.py"}
    assert set(found) <= {"factory.py", "__main__.py"} | libraries, found


def test_a_variable_that_is_none_is_warned_of_with_the_nearest(fake_server_log):
    assert fake_server_log("FLUX_MAX_QUEU") == (
        "FLUX_MAX_QUEU is set, but there is no such setting; "
        "did you mean FLUX_MAX_QUEUE?"
    )
    assert fake_server_log("FLUX_XYZZY") == (
        "FLUX_XYZZY is set, but there is no such setting"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FLUX_KEYS", "FLUX_API_KEYS"),
        ("FLUX_LORA", "FLUX_LORA_DIR"),
        ("FLUX_FILE_SERVER", "FILE_SERVER"),
        ("MODEL_INF", "MODEL_INFO"),
        ("FLUX_DEVICE", None),
        ("FLUX_PORT", None),
    ],
)
def test_what_is_alike_but_for_its_beginning_is_meant(name, meant):
    [told] = unknown(Settings, {name: "1"})
    assert told.partition("; ")[2] == (f"did you mean {meant}?" if meant else "")


@pytest.fixture
def fake_server_log():
    """The one warning of a server that is started with a variable."""

    def start(name):
        # 'serve' gives both servers what is meant for either.
        given = {name: "1", "FILES_BODY_TIMEOUT": "20"}
        with run_api(app="tests.support.fake_app:app", **given) as server:
            server.wait_ready()
            lines = [json.loads(line) for line in server.output.splitlines()]
        [line] = [line for line in lines if line["level"] == "warning"]
        return line["message"]

    return start
