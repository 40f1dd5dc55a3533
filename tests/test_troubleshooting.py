"""docs/troubleshooting.md has an entry for every error, in both languages."""

from __future__ import annotations

import re

import pytest

import file_server.errors
from flux_api.errors import FluxError
from flux_api.models.hub import ModelMissing
from tests.support.servers import ROOT

PAGES = ("docs/troubleshooting.md", "docs/ja/troubleshooting.md")
# Said of a request's parameters, without a class of their own.
LITERAL = re.compile(
    r"""code=["'](\w+)["']|refuse\(["'](\w+)["']|code = ["'](\w+)["']"""
)
OF_OTHERS = {"HF_TOKEN", "HF_HUB_OFFLINE", "MODEL_INFO"}


def rows(page):
    """The cells of every row of the page's tables."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]


def kinds(base):
    """``base`` and every class below it."""
    return {base}.union(*(kinds(kind) for kind in base.__subclasses__()))


def codes(page=PAGES[0]):
    """The status of every code that has an entry."""
    return {r[0].strip("`"): r[1] for r in rows(page) if len(r) == 4 and r[1].isdigit()}


@pytest.mark.parametrize("page", PAGES)
def test_every_code_has_an_entry(page):
    told = codes(page)
    assert ModelMissing in kinds(FluxError)
    for kind in kinds(FluxError) - {FluxError}:
        if kind.__module__.startswith("flux_api."):
            assert told[kind.code] == str(kind.status), kind
    sources = [path.read_text() for path in (ROOT / "flux_api").rglob("*.py")]
    written = {code for text in sources for m in LITERAL.findall(text) for code in m}
    assert written - {""} <= told.keys()


@pytest.mark.parametrize("page", PAGES)
def test_every_error_of_the_file_server_has_an_entry(page):
    told = {(row[0], row[1]) for row in rows(page) if len(row) == 3}
    for kind in kinds(file_server.errors.FileServerError):
        assert (str(kind.status), kind.default) in told, kind


@pytest.mark.parametrize("page", PAGES)
def test_every_entry_says_what_to_do_by_settings_that_exist(page):
    known = set(
        re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "README.md").read_text(), re.M)
    )
    named = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", (ROOT / page).read_text("utf-8")))
    assert named <= known | OF_OTHERS | {"SERVE_OPTIONS"}
    for row in rows(page):
        assert all(cell.strip() for cell in row) or row[-1] == "", row
