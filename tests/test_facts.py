"""The list of facts and the suite say the same."""

from __future__ import annotations

import re
import subprocess
import sys

import PIL
import pytest

from tests.support.facts import FACTS
from tests.support.servers import ROOT

SECTION_0 = [f"0-{number}" for number in range(1, 13)]
FAULTS = [f"W{number}" for number in range(1, 21)]


@pytest.fixture(scope="module")
def suite(request):
    """The ids of all tests: those of this run, where it is one of all."""
    items, chosen = request.session.items, request.config.option
    # Those of Ray are left out where it is not installed, as in most environments.
    files = set(ROOT.glob("tests/**/test_*.py")) - set(ROOT.glob("tests/ray/*.py"))
    whole = {item.path for item in items} >= files
    if whole and not (chosen.keyword or chosen.markexpr):
        return [item.nodeid for item in items]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "-p",
            "no:cacheprovider",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.parametrize("fact", FACTS)
def test_each_fact_has_its_tests(suite, fact):
    sentence, names = FACTS[fact]
    assert sentence.endswith(".")
    for name in names:
        assert any(name in test for test in suite), name


def test_the_list_is_complete():
    assert [fact for fact in FACTS if fact.startswith("0-")] == SECTION_0
    assert [fact for fact in FACTS if fact.startswith("W")] == FAULTS
    for section in ("2-", "3-", "4-", "6-"):
        assert sum(fact.startswith(section) for fact in FACTS) >= 8


def test_ids_in_the_suite_are_on_the_list(suite):
    found = set()
    for test in suite:
        parameters = test.partition("[")[2]
        found |= set(re.findall(r"(?<![A-Za-z0-9.])W[0-9]+(?=[-+\]])", parameters))
        found |= set(re.findall(r"^0-[0-9]+(?=-[a-z])", parameters))
    assert found
    assert found <= set(FACTS)


def test_the_decoder_is_new_enough():
    assert int(PIL.__version__.split(".")[0]) >= 13
    pinned = (ROOT / "requirements.txt").read_text()
    assert re.search(r"^pillow==1[3-9]\.", pinned, re.M)
