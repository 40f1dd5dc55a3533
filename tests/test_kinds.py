"""The page of what people really send, and the tests that it names."""

from __future__ import annotations

import re

import pytest

from tests.support.servers import ROOT

PAGE = (ROOT / "tests" / "KINDS.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (?!kind |---)", line)]


@pytest.mark.parametrize("row", ROWS, ids=[row.split(" | ")[0][2:] for row in ROWS])
def test_every_kind_has_tests_that_there_are(row):
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row.split(" | ")[2])
    assert named
    for file, name in named:
        code = (ROOT / "tests" / file).read_text("utf-8")
        assert re.search(rf"^def {name}\(", code, re.M), f"{file}::{name}"
