"""The Dockerfile, compose.yaml and the systemd units, as far as no engine is needed;
'make image' runs the Dockerfile's lines."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest
import requests
import yaml

from file_server import Settings as FileSettings
from flux_api.commands.nginx import Site, whole_text
from flux_api.settings import Settings
from tests.support.nginx import run_nginx_with
from tests.support.programs import need
from tests.support.servers import ROOT, free_port, run, run_api, run_files, wait_for
from tests.test_readme import FIELDS

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("nginx", "api", "files", "gpu")
UNITS = ROOT / "deploy" / "systemd"
NGINX = ROOT / "deploy" / "compose" / "nginx.conf"
BIN = Path(sys.executable).parent
COMPOSE_SITE = Site(
    "8080",
    ("api:8000",),
    "files:8010",
    folder=Path("/var/lib/flux-imaging-api/images"),
)


def test_the_linter_has_nothing_to_say_of_the_dockerfile():
    done = subprocess.run(
        [BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_has_what_the_lock_names():
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    installed = re.findall(r"pip install([^&\n]*)", text)
    assert any("--require-hashes -r requirements.lock" in line for line in installed)
    # Nothing that the lock has is chosen anew.
    assert not any("requirements.txt" in line for line in installed)
    for name in ("requirements-s3.txt", "requirements-gguf.txt"):
        assert any(name in line for line in installed)
    # Each file that is copied by its name goes to the build.
    (copied,) = re.findall(r"^COPY (install_torch.*) \./$", text, re.M)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    for name in copied.split():
        assert any(fnmatch(name, pattern) for pattern in sent), name


def test_compose_is_as_its_schema_says():
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, ROOT / "compose.yaml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_do_little(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    # Reached from this machine alone unless somebody says otherwise.
    for port in service.get("ports", ()):
        assert re.match(r"\$\{BIND:-127\.0\.0\.1:", port)


def test_what_compose_names_is_there():
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            known = (ROOT / source).exists() if source[0] == "." else source
            assert known is True or known in COMPOSE["volumes"], volume
        for secret in service.get("secrets", ()):
            assert secret in COMPOSE["secrets"]
        for name in service.get("environment", ()):
            # HF_TOKEN is the Hub's own, GF_... Grafana's.
            assert name in FIELDS or name.startswith(("HF_", "GF_")), name


def script_of(name):
    """What the shell runs in a container."""
    service = SERVICES[name]
    shell, options, script = service.get("entrypoint") or service["command"]
    assert (shell, options) == ("sh", "-euc")
    return script.replace("$$", "$")


@pytest.mark.parametrize("name", [*OURS, "prometheus"])
def test_commands_in_compose_are_shell(name):
    script = script_of(name)
    subprocess.run(["sh", "-n", "-c", script], check=True)


@pytest.mark.parametrize("ttl", ["", "24"])
def test_nginx_in_compose_is_what_serve_would_write_for_the_settings(tmp_path, ttl):
    script = script_of("nginx")
    assert "exec nginx -e stderr -c /tmp/nginx.conf" in script
    script = script.replace("/etc/flux/nginx.conf", str(NGINX))
    script = script.replace("exec nginx", "exec true").replace("/tmp/", f"{tmp_path}/")
    given = {"FLUX_MAX_UPLOAD_MB": "200", "FLUX_REQUEST_TIMEOUT": "900.5"}
    given["FILES_TTL_HOURS"] = ttl
    assert given.keys() <= SERVICES["nginx"]["environment"].keys()
    subprocess.run(["sh", "-euc", script], env=given, check=True)
    text = (tmp_path / "nginx.conf").read_text()
    # Those that go some day come from the file server, which says when.
    site = replace(
        COMPOSE_SITE,
        body_mb=200,
        seconds=920,
        folder=None if ttl else COMPOSE_SITE.folder,
    )
    expected = whole_text(site, Path("/tmp"))
    assert lines_of(text) == lines_of(expected)
    assert ("max-age=31536000" in text) == (not ttl)
    # Both know of it, wherever it is set.
    for name in ("files", "gpu"):
        told = SERVICES[name]["environment"]
        assert (
            told["FILES_TTL_HOURS"]
            == SERVICES["nginx"]["environment"]["FILES_TTL_HOURS"]
        )


def lines_of(text):
    """Those that say something."""
    return [line for line in text.splitlines() if line.strip()]


def test_every_setting_reaches_the_servers_in_compose():
    for name in ("api", "files", "gpu"):
        assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}]


def test_prometheus_in_compose_finds_the_servers_of_the_gpus_too():
    text = (ROOT / "deploy/compose/prometheus.yml").read_text()
    jobs = yaml.safe_load(text)["scrape_configs"]
    targets = {job["static_configs"][0]["targets"][0] for job in jobs}
    gpu = SERVICES["gpu"]
    metrics = gpu["environment"]["FLUX_METRICS_BIND"].replace("0.0.0.0", "api")
    (files,) = re.findall(r"--files-bind 0\.0\.0\.0:(\d+)", script_of("gpu"))
    assert targets == {metrics, f"files:{files}"}
    assert gpu["networks"]["default"]["aliases"] == ["api", "files"]


@pytest.mark.parametrize("token", [None, "a-token-of-the-operator"])
def test_prometheus_in_compose_scrapes_both_servers(tmp_path, token):
    program, port = need("prometheus"), free_port()
    script = script_of("prometheus")
    for path in ("/run/secrets", "/etc/prometheus", "/prometheus"):
        script = re.sub(rf"(?<=[ =]){path}\b", f"{tmp_path}{path}", script)
        (tmp_path / path.strip("/")).mkdir(parents=True)
    script = script.replace("/tmp/files_token", f"{tmp_path}/files_token")
    script = script.replace("exec prometheus", f"exec {program}")
    script = f"{script.strip()} --web.listen-address=127.0.0.1:{port}"
    # As the secret that compose makes of /dev/null where no file is given.
    secret = tmp_path / "run/secrets/files_token"
    secret.write_text(token) if token else secret.symlink_to("/dev/null")
    given = {"BEARER_TOKEN": token} if token else {"BEARER_TOKEN": "changeme-token"}
    with run_files(tmp_path / "images", **given) as files, run_api() as api:
        text = (ROOT / "deploy/compose/prometheus.yml").read_text()
        text = text.replace("rule_files: [alerts.yml]", "").replace("15s", "1s")
        text = text.replace("/tmp/files_token", f"{tmp_path}/files_token")
        for name, server in (("api:9100", api), ("files:8010", files)):
            assert name in text
            text = text.replace(name, server.url.removeprefix("http://"))
        (tmp_path / "etc/prometheus/prometheus.yml").write_text(text)
        url = f"http://127.0.0.1:{port}"
        with run(["sh", "-euc", script], url=url, settings={}) as server:

            def scraped():
                asked = f"{url}/api/v1/query?query=up"
                answer = requests.get(asked, timeout=5)
                # While it starts, it says so in plain words.
                told = answer.json()["data"]["result"] if answer.ok else []
                return {one["metric"]["job"]: one["value"][1] for one in told}

            both = {"flux": "1", "flux-files": "1"}
            wait_for(lambda: scraped() == both, 60, server)


def test_pictures_take_longer_to_stop_than_to_make():
    # What goes through nginx ends with it, unless it is asked to wait.
    assert SERVICES["nginx"]["stop_signal"] == "SIGQUIT"
    graces = [SERVICES[name]["stop_grace_period"] for name in ("nginx", "api", "gpu")]
    grace = min(int(re.search(r"STOP_GRACE_PERIOD:-(\d+)s", g)[1]) for g in graces)
    unit = (UNITS / "flux-api@.service").read_text()
    systemd = int(re.search(r"TimeoutStopSec=(\d+)", unit)[1])
    # gunicorn adds 30 s.
    assert min(grace, systemd) > Settings().request_timeout + 30
    # The other way round at the end of the machine.
    (after,) = re.findall(r"^After=(.*)", unit, re.M)
    assert {"flux-files.service", "nginx.service"} <= set(after.split())


def test_nginx_in_compose_is_what_serve_would_write():
    # What it writes is in /tmp.
    assert NGINX.read_text() == whole_text(COMPOSE_SITE, Path("/tmp"))


@pytest.mark.parametrize("what", [None, "", "alice:sk-alice-0123456789"])
@pytest.mark.parametrize(
    ("name", "secret", "variable"),
    [
        ("api", "api_keys", "FLUX_API_KEYS_FILE"),
        ("files", "files_token", "BEARER_TOKEN_FILE"),
        ("gpu", "api_keys", "FLUX_API_KEYS_FILE"),
        ("gpu", "files_token", "BEARER_TOKEN_FILE"),
    ],
)
def test_a_file_of_secrets_counts_even_with_nothing_in_it(
    tmp_path, name, secret, variable, what
):
    """The servers refuse that one: an open door would be the wrong answer to a slip."""
    path = tmp_path / secret
    path.symlink_to("/dev/null") if what is None else path.write_text(what)
    script = script_of(name).replace("/run/secrets", str(tmp_path))
    script = re.sub(r"exec .*", f'printf %s "${{{variable}:-}}"', script)
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "" if what is None else str(path))


def test_one_service_builds_the_image_of_all():
    """Two that build one at once fail: the image "already exists"."""
    builders = {}
    for name in OURS:
        assert SERVICES[name]["pull_policy"] == "never"
        if "build" in SERVICES[name]:
            builders.setdefault(SERVICES[name]["image"], []).append(name)
    assert builders == {"flux-imaging-api": ["api"], "flux-imaging-api:cuda": ["gpu"]}
    # Which of the others is started, "api" is.
    assert "api" in SERVICES["nginx"]["depends_on"]


def test_pictures_stay_when_the_gpus_take_over():
    at = "images:/var/lib/flux-imaging-api/images"
    for name in ("files", "gpu"):
        assert at in SERVICES[name]["volumes"]


def test_nginx_in_compose_leads_to_both(tmp_path):
    # From its http block on, with this machine's addresses.
    text = NGINX.read_text().partition("http {")[2].rpartition("}")[0]
    text = re.sub(r"^(access_log|\w+_temp_path) .*\n", "", text, flags=re.M)
    text = text.replace("listen 8080", "listen 127.0.0.1:8080")
    with (
        run_files(tmp_path / "images", FILES_TRUSTED_PROXIES=1) as files,
        run_api(
            app="tests.support.fake_app:app",
            FLUX_TRUSTED_PROXIES=1,
            FILE_SERVER=files.url,
        ) as api,
    ):
        text = text.replace("api:8000", api.url.removeprefix("http://"))
        text = text.replace("files:8010", files.url.removeprefix("http://"))
        text = text.replace("/var/lib/flux-imaging-api", str(tmp_path))
        with run_nginx_with(tmp_path, text, files) as nginx:
            api.wait_ready()
            form = {"prompt": "x", "width": 64, "height": 64}
            answer = requests.post(f"{nginx.url}/process", data=form, timeout=10)
            path = answer.json()["result_image_url"].removeprefix(files.url)
            assert requests.get(nginx.url + path, timeout=10).content[:4] == b"\x89PNG"


def test_units_are_as_systemd_wants_them(tmp_path):
    program = need("systemd-analyze")
    for unit in UNITS.iterdir():
        # The programs of this environment, where the units have those of /opt/flux.
        text = unit.read_text().replace("/opt/flux/bin", str(BIN))
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        [program, "verify", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if "flux" in line]
    assert told == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["flux-api@.service", "flux-files.service"])
def test_units_name_settings_and_programs_that_exist(name):
    text = (UNITS / name).read_text()
    for line in re.findall(r"^Environment=(.*)", text, re.M):
        for variable in re.findall(r"(\w+)=", line):
            assert variable in FIELDS or variable in ("CUDA_VISIBLE_DEVICES", "HF_HOME")
    assert "NoNewPrivileges=yes" in text and "ProtectSystem=strict" in text


@pytest.mark.parametrize("name", ["flux-api@.service", "flux-files.service"])
def test_units_may_write_where_their_settings_point(name):
    """All else is read-only for them, and homes are hidden."""
    text = (UNITS / name).read_text()
    given = dict(re.findall(r"(\w+)=([^ \n]*/var/\S*)", text))
    places = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache"}
    own = [
        f"{top}/{folder}"
        for kind, top in places.items()
        for folder in re.findall(rf"^{kind}=(.*)", text, re.M)
    ]
    written = {"FLUX_STATE_DIR", "HF_HOME"} if "api" in name else {"STORAGE_URL"}
    assert written == given.keys()
    for path in given.values():
        assert any(path.removeprefix("file://").startswith(place) for place in own)


def test_what_outlives_a_restart_has_a_volume_in_compose():
    (home,) = re.findall(r"XDG_STATE_HOME=(\S+)", (ROOT / "Dockerfile").read_text())
    for name in ("api", "gpu"):
        volumes = [volume.split(":")[1] for volume in SERVICES[name]["volumes"]]
        assert f"{home}/flux-imaging-api" in volumes


def test_the_steps_for_systemd_leave_what_the_units_read(tmp_path):
    """Those that write; the rest needs an empty machine."""
    (etc := tmp_path / "etc").mkdir()
    for folder in ("systemd/system", "nginx/conf.d"):
        (etc / folder).mkdir(parents=True)
    text = (ROOT / "docs" / "deployment.md").read_text("utf-8")
    (block,) = re.findall(r"```bash\n(sudo useradd.*?)```", text, re.S)
    lines = [line for line in block.splitlines() if " /etc/" in line]
    script = "\n".join(lines).replace("sudo ", "").replace("-g flux ", "")
    script = script.replace("/etc/", f"{etc}/")
    # Where the units' programs are, too.
    script = script.replace("/opt/flux/bin/flux-api", f"{sys.executable} -m flux_api")
    subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script], cwd=ROOT, check=True
    )
    assert {unit.name for unit in UNITS.iterdir()} <= {
        unit.name for unit in (etc / "systemd/system").iterdir()
    }
    (key,) = Settings.from_env(variables_of(etc / "flux/api.env")).api_keys
    assert key.name == "alice"
    files = FileSettings.from_env(variables_of(etc / "flux/files.env"))
    assert re.fullmatch("[0-9a-f]{48}", files.bearer_token_file.read_text().strip())
    site = (etc / "nginx/conf.d/flux.conf").read_text()
    site = site.replace("0.0.0.0:80", f"127.0.0.1:{free_port()}")
    assert 'root "/var/lib/flux/images"' in site
    (tmp_path / "site").write_text(site)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; events {{}} http {{ include {tmp_path}/site; }}"
    )
    command = [need("nginx"), "-t", "-e", "stderr", "-c", tmp_path / "nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def variables_of(file):
    """The environment that a unit reads there."""
    return dict(line.split("=", 1) for line in file.read_text().splitlines())
