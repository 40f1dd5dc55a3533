"""The command that looks for wheels; what the index has is not tested."""

from __future__ import annotations

import sys

from scripts import wheels
from tests.support.servers import ROOT


def test_every_pin_of_every_file_is_asked_for():
    lines = [
        line.split()[0]
        for path in ROOT.glob("requirements*.txt")
        # Those are installed without what they depend on.
        if path.name != "requirements-clients.txt"
        for line in path.read_text().splitlines()
        if line and line[0] not in "#-"
    ]
    assert sorted(wheels.pins()) == sorted(lines)


def test_what_has_no_wheel_is_named(monkeypatch, capsys):
    """As with an index of nothing but pytest."""
    monkeypatch.setattr(
        wheels, "resolve", lambda python, *wanted: wanted == ("pytest==9.2.0",)
    )
    assert wheels.main(["3.14"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("3.14 lacks: ")
    assert "torch==" in said
    assert "pytest==" not in said


def test_pip_has_no_wheel_of_what_is_no_package():
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert not wheels.resolve(python, "./nowhere.whl")
