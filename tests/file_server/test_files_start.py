"""Starting and stopping: the script on its port, plain gunicorn, wrong settings."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest
import requests

from file_server.config import Bucket, Folder, Settings, SettingsError
from tests.file_server.serving import (
    BIN,
    ROOT,
    clean_env,
    fact,
    launch,
    picture,
    sealed,
)
from tests.support.servers import wait_for

SCRIPT = str(ROOT / "image_file_server.py")


@fact("6-default-token")
def test_the_script_serves_on_port_8010_and_stops_on_ctrl_c(folder, tmp_path):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8010))
        except OSError:
            pytest.fail("port 8010 is in use: stop what listens there and test again")
    # What lies in the current folder for another server must not matter.
    (tmp_path / "gunicorn.conf.py").write_text("raise SystemExit('loaded')\n")
    env = clean_env(GUNICORN_CMD_ARGS="--bind 127.0.0.1:1", **folder.settings)
    env.pop("PYTHONPATH")
    server = launch([sys.executable, SCRIPT], env, cwd=tmp_path)
    try:
        assert server.url == "http://127.0.0.1:8010"
        path = server.stored(picture())
        auth = {"Authorization": "Bearer changeme-token"}
        answer = requests.get("http://localhost:8010/latest", headers=auth, timeout=30)
        assert answer.json()["url"] == f"http://localhost:8010{path}"
        [warning] = [line for line in server.log() if line["level"] == "warning"]
        assert "BEARER_TOKEN" in warning["message"]
        assert server.stop(signal.SIGINT) == 0
    finally:
        server.stop(signal.SIGKILL)
    assert "Traceback" not in "".join(server.lines)


@pytest.fixture
def impatient(folder, tmp_path):
    """The script, with a second for everything that a client does, and a file of the
    folder that it is started in."""
    (tmp_path / "token").write_text("x")
    settings = {"FILES_BIND": "127.0.0.1:0", "FILES_BODY_TIMEOUT": "1"}
    env = clean_env(BEARER_TOKEN_FILE="token", **settings, **folder.settings)
    env.pop("PYTHONPATH", None)
    server = launch([sys.executable, SCRIPT], env, cwd=tmp_path)
    yield server
    server.stop(signal.SIGKILL)


def address_of(server):
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def test_the_script_waits_for_no_half_request(impatient):
    with socket.create_connection(address_of(impatient), 30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        assert connection.recv(1) == b""
    assert impatient.get("/healthz").ok


def test_gunicorn_waits_for_no_half_request_either(serve, folder):
    settings = {"FILES_BODY_TIMEOUT": "1", "FLUX_BODY_TIMEOUT": "300"}
    server = serve("-c", "gunicorn.conf.py", **settings, **folder.settings)
    with socket.create_connection(address_of(server), 20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        assert connection.recv(1) == b""


def test_connections_that_say_nothing_do_not_hold_up_the_end(serve, folder):
    """Browsers open some in advance."""
    server = serve("-c", "gunicorn.conf.py", **folder.settings)
    with socket.create_connection(address_of(server), 20) as connection:
        # Long enough for its thread to have let go of it.
        for _ in range(50):
            assert server.get("/healthz").ok
        assert server.stop() == 0
        assert connection.recv(1) == b""


def test_who_takes_nothing_of_a_picture_holds_no_thread_for_good(impatient):
    """More of them than the server has threads."""
    from flux_server.gunicorn_settings import threads

    path = impatient.stored(sealed(1, 12_000_000))
    idle = []
    try:
        for _ in range(threads + 12):
            connection = socket.socket()
            idle.append(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(address_of(impatient))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert impatient.get("/healthz").ok
    finally:
        for connection in idle:
            connection.close()
    assert impatient.get(path).content == sealed(1, 12_000_000)
    assert "Traceback" not in "".join(impatient.lines)


def test_plain_gunicorn_in_the_checkout_serves(folder):
    command = [str(BIN / "gunicorn"), "-b", "127.0.0.1:0", "file_server:create_app()"]
    server = launch(command, clean_env(BEARER_TOKEN="x", **folder.settings))
    try:
        path = server.stored(picture())
        assert server.get(path).content == picture()
        assert server.stop() == 0
    finally:
        server.stop(signal.SIGKILL)
    assert not [line for line in server.log() if line["level"] != "info"]


def test_the_defaults_are_the_documented_ones():
    settings = Settings.from_env({"BEARER_TOKEN": "", "FILES_TTL_HOURS": ""})
    assert settings == Settings(
        bearer_token="changeme-token",
        upload_token="",
        storage=Folder(ROOT / "var" / "images"),
        public_url="",
        trusted_proxies=0,
        trusted_hosts=(),
        max_upload=64 * 1024 * 1024,
        max_total=0,
        min_free=0,
        ttl=0.0,
        bind="127.0.0.1:8010",
    )
    assert "changeme" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("file:///srv/images", Folder(ROOT.__class__("/srv/images"))),
        ("file://localhost/srv/a%20b", Folder(ROOT.__class__("/srv/a b"))),
        ("s3://bucket", Bucket("bucket", "")),
        ("s3://my.bucket-1/a/b/", Bucket("my.bucket-1", "a/b/")),
    ],
)
def test_storage_urls(url, place):
    assert Settings.from_env({"STORAGE_URL": url}).storage == place


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BEARER_TOKEN", "x" * 4096),
        # The longest name that a bucket may have.
        ("STORAGE_URL", f"s3://{'b' * 63}"),
        *(("FILES_TRUSTED_PROXIES", value) for value in ("0", "99")),
        *(("FILES_BODY_TIMEOUT", value) for value in ("0.5", "3600")),
        ("FILES_MAX_TOTAL_MB", "1e12"),
        ("FILES_BIND", "host:65535"),
    ],
)
def test_the_bounds_themselves_may_be_set(variable, value):
    Settings.from_env({variable: value})


WRONG = {
    "BEARER_TOKEN": ["a\tb", " x9q7", "x" * 4097, "a\x7f"],
    "UPLOAD_TOKEN": ["a\nb", "x9q7 "],
    "BEARER_TOKEN_FILE": ["/no/such/file", "/"],
    "UPLOAD_TOKEN_FILE": ["/no/such/file", "/dev/null"],
    "STORAGE_URL": [
        *("images", "/srv/images", "file:images", "file://host/srv", "s3://"),
        *("s3:///prefix", "s3://UPPER", "ftp://host/x", "http://host/", "file:///a?b"),
        *("s3://key:hidden@bucket/x", "file:///a%00b", "file:///a b", "s3://["),
        f"s3://{'b' * 64}",
    ],
    "PUBLIC_URL": [
        *("files.example", "ftp://files.example", "https://", "https://a/?q", "//a"),
        *("https://me:hidden@a/", "https://a:port/", "https://a/#f", "javascript:1"),
    ],
    "FILES_TRUSTED_PROXIES": ["-1", "1.5", "one", "100", "0x1", "١"],
    "FILES_TRUSTED_HOSTS": ["a:80", "http://a", "a,,b", "*", "a b"],
    "FILES_MAX_UPLOAD_MB": ["0", "-1", "nan", "inf", "64MB", "1e99", "1.1e12", "1e-10"],
    "FILES_MAX_TOTAL_MB": ["-1", "nan", "all"],
    "FILES_MIN_FREE_MB": ["-0.1", "inf", "10%"],
    "FILES_BODY_TIMEOUT": ["0", "0.49", "3600.1", "nan", "soon"],
    "FILES_TTL_HOURS": ["-1", "nan", "1d"],
    "FILES_BIND": ["8010", "localhost", "a:b", "host:65536", "[::1]", "a b:80"],
}


@pytest.mark.parametrize(
    ("variable", "value"),
    [(variable, value) for variable, values in WRONG.items() for value in values],
)
def test_a_wrong_setting_is_named_with_its_value(variable, value):
    with pytest.raises(SettingsError) as raised:
        Settings.from_env({variable: value})
    text = str(raised.value)
    assert text.startswith(f"{variable}=")
    assert "hidden" not in text
    if variable.endswith("_TOKEN"):
        assert value.strip() not in text
    elif "@" not in value:
        assert repr(value) in text


STARTS = {
    "script": [sys.executable, SCRIPT],
    "gunicorn": [
        str(BIN / "gunicorn"),
        "-b",
        "127.0.0.1:0",
        "file_server:create_app()",
    ],
}


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize(
    ("variable", "value"),
    [("FILES_TTL_HOURS", "soon"), ("STORAGE_URL", "file:///dev/null/images")],
)
@fact("wrong-setting")
def test_a_wrong_setting_stops_the_start(how, variable, value):
    result = subprocess.run(
        STARTS[how],
        env=clean_env(BEARER_TOKEN="do-not-show", **{variable: value}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode != 0
    assert f"{variable}={value!r}" in result.stderr
    assert "do-not-show" not in result.stderr
    if how == "script" and variable != "STORAGE_URL":
        assert result.stderr.count("\n") == 1


def test_boto3_is_loaded_only_when_s3_is_chosen():
    code = "import sys, file_server; sys.exit('boto3' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    code = (
        "import sys; sys.modules['boto3'] = None\n"
        "import file_server\n"
        "file_server.create_app(file_server.Settings.from_env("
        "{'STORAGE_URL': 's3://bucket/x', 'BEARER_TOKEN': 'x'}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "STORAGE_URL" in result.stderr
    assert "requirements-s3.txt" in result.stderr


def test_a_variable_that_is_none_is_warned_of_with_the_nearest(folder):
    command = [str(BIN / "gunicorn"), "-b", "127.0.0.1:0", "file_server:create_app()"]
    # 'serve' gives both servers what is meant for either.
    of_the_api = {"FLUX_BODY_TIMEOUT": "20", "FLUX_TRUSTED_PROXIES": "1"}
    given = folder.settings | of_the_api
    env = clean_env(BEARER_TOKEN="x", FILES_TTL_HOUR="1", **given)
    server = launch(command, env)
    try:
        server.stored(picture())
        [warning] = [line for line in server.log() if line["level"] == "warning"]
    finally:
        server.stop(signal.SIGKILL)
    assert warning["message"] == (
        "FILES_TTL_HOUR is set, but there is no such setting; "
        "did you mean FILES_TTL_HOURS?"
    )


@pytest.mark.parametrize("start", ["script", "gunicorn"])
@pytest.mark.parametrize(
    ("bind", "token"), [("0.0.0.0", ""), ("0.0.0.0", "t"), ("", "")]
)
def test_who_can_be_reached_and_takes_any_upload_is_warned(folder, start, bind, token):
    address = f"{bind or '127.0.0.1'}:0"
    env = clean_env(BEARER_TOKEN="x", UPLOAD_TOKEN=token, FILES_BIND=address)
    command = [sys.executable, SCRIPT]
    if start == "gunicorn":
        application = "file_server:create_app()"
        command = [BIN / "gunicorn", "-c", ROOT / "gunicorn.conf.py", "-b", address]
        command = [*map(str, command), application]
    server = launch(command, env | folder.settings)
    try:
        # The worker warns before it serves, and logs a request after it has answered.
        assert server.get("/healthz").ok
        wait_for(lambda: any(line["message"] == "request" for line in server.log()), 20)
        warnings = [line for line in server.log() if line["level"] == "warning"]
    finally:
        server.stop(signal.SIGKILL)
    told = ["UPLOAD_TOKEN" in line["message"] for line in warnings]
    assert told == ([True] if bind and not token else [])
