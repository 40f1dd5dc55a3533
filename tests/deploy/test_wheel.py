"""The wheel in an environment of its own, without a checkout: it serves and draws."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.support.programs import need
from tests.support.servers import QUIET, ROOT, SETTINGS, free_port, run, wait_for

MOST_BYTES = 40 << 20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: building writes into the source."""
    listed = subprocess.run(
        [need("git"), "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    source = tmp_path_factory.mktemp("source")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if os.path.lexists(ROOT / name):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", source, "-w", out, "--no-build-isolation")
    [built] = out.glob("*.whl")
    return built


def pip(*arguments):
    """pip without a package index."""
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(
        [*command, "--no-deps", "--no-index", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    """The ``bin`` of an environment with nothing but the wheel; what others have
    written is lent to it."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    python = place / "bin" / "python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(own, "lent.pth").write_text("\n".join(sorted(lent)))
    command = [sys.executable, "-m", "pip", "--python", python, "install", wheel]
    subprocess.run(
        [*command, "--no-deps", "--no-index", "--quiet"], check=True, timeout=120
    )
    return place / "bin"


@pytest.fixture
def elsewhere(tmp_path):
    """An empty folder, and what the environment says there."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder, {
        "PYTHONPATH": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path / "home"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "BEARER_TOKEN": "a-token-of-the-tests",
    }


def call(folder, settings, *command):
    """A program of the environment to its end."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS)}
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=kept | QUIET | settings,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_the_wheel_is_small_and_holds_what_runs_and_nothing_else(wheel):
    assert wheel.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [n for n in names if n.endswith("/METADATA")]
        told = archive.read(metadata).decode()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"flux_api", "file_server", "flux_server"}
    held = {name.removeprefix("flux_api/") for name in names}
    tracked = {
        path.relative_to(ROOT / "flux_api").as_posix()
        for path in (ROOT / "flux_api").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert tracked <= held
    wanted = re.findall(r"^Requires-Dist: (\S+==\S+?)(?:;.*)?$", told, re.M)
    of_tests = {ROOT / f"requirements-{name}.txt" for name in ("dev", "clients")}
    files = set(ROOT.glob("requirements*.txt")) - of_tests
    texts = [path.read_text() for path in files]
    assert sorted(wanted) == sorted(re.findall(r"^\S+==\S+", "\n".join(texts), re.M))


def test_it_serves_a_page_and_pictures_from_there(programs, elsewhere):
    folder, settings = elsewhere
    where = call(
        folder, settings, programs / "python", "-c", "import flux_api as f; print(f)"
    )
    assert str(programs.parent) in where.stdout
    api, files = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [programs / "flux-api", "serve", "--bind", api, "--files-bind", files]
    with run(
        list(map(str, command)), url=f"http://{api}", settings=settings, cwd=folder
    ) as server:
        wait_for(lambda: "Try it" in server.output, 120, server)
        page = requests.get(server.url, headers={"Accept": "text/html"}, timeout=10)
        assert "<html" in page.text
        form = {"prompt": "a red heart", "seed": 7}
        answer = requests.post(f"{server.url}/process", data=form, timeout=60).json()
        url = answer["result_image_url"]
        assert url.startswith(f"http://{files}/i/")
        stored = requests.get(url, timeout=10).content
        kept = Path(settings["XDG_STATE_HOME"], "flux-imaging-api", "images")
        assert stored in [path.read_bytes() for path in kept.rglob("*.png")]
        drawn = call(
            folder,
            settings | {"FLUX_SERVER": server.url},
            *(programs / "flux-api", "generate", "a red heart", "--seed", 7),
        )
        assert drawn.returncode == 0, drawn.stderr
        assert (folder / "a-red-heart.png").read_bytes() == stored
        assert "no such setting" not in server.output
        # Its servers end with it.
        assert server.stop() == 0
    (folder / "a-red-heart.png").unlink()
    assert list(folder.iterdir()) == []


def test_it_draws_in_process_and_under_gunicorn_by_its_modules(programs, elsewhere):
    folder, settings = elsewhere
    made = subprocess.run(
        [programs / "flux-api", "generate", "a cat", "-o", "-", "--size", "64x64"],
        cwd=folder,
        env=os.environ | QUIET | settings,
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert Image.open(io.BytesIO(made.stdout)).size == (64, 64)
    address = f"127.0.0.1:{free_port()}"
    command = [
        *(programs / "python", "-m", "gunicorn", "-b", address),
        *("-c", "python:flux_server.gunicorn_settings", "flux_server.wsgi:app"),
    ]
    with run(
        list(map(str, command)), url=f"http://{address}", settings=settings, cwd=folder
    ) as server:
        server.wait_ready()
        assert server.stop() == 0
