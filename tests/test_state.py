"""Where is written what outlives a restart, as long as no setting says otherwise."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT

PRINT = (
    "from flux_api.settings import Settings;"
    "from file_server import Settings as Files; from pathlib import Path;"
    "print(Settings().state_folder, Files().storage.path, Path.home(), sep='\\n')"
)


def printed(folder, environ):
    """The three folders that a process in ``folder`` finds."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT],
        cwd=folder,
        env=environ,
        capture_output=True,
        check=True,
        text=True,
    )
    return map(Path, done.stdout.split())


@pytest.mark.parametrize(
    ("xdg", "parent"), [("/state", "/state"), ("state", ".local/state")]
)
def test_an_installed_package_writes_below_the_users_state_folder(
    xdg, parent, tmp_path
):
    packages = ("flux_api", "file_server", "flux_server")
    for name in packages:
        shutil.copytree(ROOT / name, tmp_path / name)
    environ = {"XDG_STATE_HOME": xdg, "HOME": str(tmp_path / "home")}
    state, images, home = printed(tmp_path, environ)
    folder = home / parent / "flux-imaging-api"
    assert (state, images) == (folder / "state", folder / "images")


def test_a_checkout_keeps_it_together(tmp_path):
    state, images, _ = printed(ROOT, {"XDG_STATE_HOME": str(tmp_path)})
    assert (state, images) == (ROOT / "var" / "state", ROOT / "var" / "images")
