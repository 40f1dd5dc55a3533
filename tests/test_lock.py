"""requirements.lock holds just what requirements.txt asks for, with hashes."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from tests.support.servers import ROOT

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;#\\]+)", re.MULTILINE)
LOCK = (ROOT / "requirements.lock").read_text("utf-8")


def pins(text: str) -> dict[str, str]:
    """Versions by package names as PEP 503 spells them."""
    return {re.sub(r"[-_.]+", "-", n).lower(): v for n, v in PIN.findall(text)}


def entries() -> list[str]:
    """The lock's text, one piece a package."""
    starts = [match.start() for match in PIN.finditer(LOCK)]
    ends = [*starts[1:], len(LOCK)]
    return [LOCK[start:end] for start, end in zip(starts, ends, strict=True)]


def test_the_lock_is_not_stale():
    asked = pins((ROOT / "requirements.txt").read_text("utf-8"))
    del asked["torch"]  # install_torch.py chooses its build
    direct = [entry for entry in entries() if "-r requirements.txt" in entry]
    assert pins("\n".join(direct)) == asked, "requirements.txt has changed: make lock"


def test_every_package_has_hashes_and_no_index_is_named():
    assert all("--hash=sha256:" in entry for entry in entries())
    assert "://" not in LOCK


def test_torch_and_what_only_its_cuda_build_needs_are_not_in_it():
    unwanted = ("torch", "nvidia", "cuda", "triton")
    assert not [name for name in pins(LOCK) if name.startswith(unwanted)]


def test_the_list_of_what_is_installed_has_licences():
    command = [sys.executable, "-m", "cyclonedx_py", "environment"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    found = json.loads(done.stdout)["components"]
    parts = {part["name"].lower(): part for part in found}
    assert parts["flask"]["licenses"]
