"""The command that puts faults into the source and says which no test notices."""

from __future__ import annotations

import shutil
import subprocess
import sys

from tests.support.programs import need
from tests.support.servers import ROOT

SOURCE = '''"""A module of six functions."""

from __future__ import annotations

import json
import logging

logger = logging.getLogger(__name__)


def first(names: list[str] | None) -> str:
    logger.debug("of %d", len(names or ()) - 1)
    return names[0]


def second(names):
    return names[1]


def third(names):
    return names[2]


def emptied(names):
    while names:
        names = ()
    return names


def dotted(text):
    try:
        json.loads(text)
    except (json.JSONDecodeError, json.decoder.JSONDecodeError):
        logger.debug("no JSON")


class Names:
    def __repr__(self):
        return "Names" + " of " + str(5)
'''
OWN_TESTS = """from pathlib import Path

from flux_api.queue.names import emptied, first


def test_names():
    assert Path("linked", "names.py").is_file()
    assert first("ab") == "a"
    assert emptied(()) == ()
"""
OTHER_TESTS = """from flux_api.queue.names import second


def test_names():
    assert second("abc") == "b"
"""


def run_in(folder, files):
    """The command in a checkout at ``folder`` of ``files``, texts by name."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "linked").symlink_to("flux_api/queue")
    subprocess.run([need("git"), "init", "-q"], cwd=folder, check=True)
    return subprocess.run(
        [
            *(sys.executable, ROOT / "scripts" / "run_mutants.py"),
            *("--patience", "5", "--workers", "0"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_survivors_are_told_hangs_are_noticed_and_the_checkout_is_left_alone(tmp_path):
    files = {
        "flux_api/queue/names.py": SOURCE,
        "tests/queue/test_names.py": OWN_TESTS,
        "tests/http/test_next_instance.py": OTHER_TESTS,
    }
    done = run_in(tmp_path, files)
    assert done.returncode == 0, done.stdout + done.stderr
    fates = dict(
        line.split(maxsplit=2)[1:]
        for line in done.stdout.splitlines()
        if " flux_api/queue/names.py:" in line
    )
    at = {text.strip(): n for n, text in enumerate(SOURCE.splitlines(), 1)}
    assert {int(place.split(":")[1]): fate for place, fate in fates.items()} == {
        at["return names[0]"]: "its own tests",
        at["while names:"]: "its own tests",
        at["return names[1]"]: "the other tests",
        at["return names[2]"]: "SURVIVED",
    }
    assert "\n-    return names[2]\n" in done.stdout
    assert done.stdout.endswith("\n1 of 4 mutants survived: 25%\n")
    assert {name: (tmp_path / name).read_text() for name in files} == files


def test_a_test_that_fails_anyway_notices_nothing(tmp_path):
    files = {
        "flux_api/queue/names.py": SOURCE,
        "tests/queue/test_names.py": OWN_TESTS + "\n\ndef test_x():\n    assert 0\n",
    }
    done = run_in(tmp_path, files)
    assert done.returncode == 1
    told = "tests/queue/test_names.py::test_x fails without any mutant"
    assert done.stderr.startswith(told), done.stderr
