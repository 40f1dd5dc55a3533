"""docs/openai-compatibility.md says everything, and nothing that is not so, in both
languages."""

from __future__ import annotations

import re
import subprocess
import sys
import typing

import pytest
from openai.types import (
    image_create_variation_params,
    image_edit_params,
    image_generate_params,
)
from pydantic import AliasChoices

from flux_api.blueprints.openai.parameters import QUALITY, REFUSED, ImagesParameters
from flux_api.errors import FluxError
from flux_api.http.parameters import Parameters
from flux_api.models.hub import ModelMissing
from tests.support.servers import ROOT
from tests.test_troubleshooting import codes, kinds

PAGES = ("docs/openai-compatibility.md", "docs/ja/openai-compatibility.md")
ROW = re.compile(r"^\| `(\w+)` \| ([GEV ]+) \| (.+) \|$", re.MULTILINE)
# The other is the original API's.
OPENAIS = set(REFUSED) - {"bearer_token", "recipe_of"}
OPERATIONS = {
    "G": image_generate_params.ImageGenerateParams,
    "E": image_edit_params.ImageEditParams,
    "V": image_create_variation_params.ImageCreateVariationParams,
}


def parameters(kind):
    """The names in a TypedDict, or in a union of several."""
    members = typing.get_args(kind) or (kind,)
    return {name for member in members for name in typing.get_type_hints(member)}


def first_name(name, field):
    """What a field is called where it has several names."""
    alias = field.validation_alias
    return alias.choices[0] if isinstance(alias, AliasChoices) else alias or name


@pytest.fixture(params=PAGES)
def text(request):
    return (ROOT / request.param).read_text("utf-8")


@pytest.fixture
def table(text):
    """Where a parameter is taken and what is said of it, by its name."""
    return {name: (where.split(), says) for name, where, says in ROW.findall(text)}


@pytest.mark.parametrize("letter", OPERATIONS)
def test_every_parameter_of_the_sdk_has_its_row(table, letter):
    told = {name for name, (where, _) in table.items() if letter in where}
    assert told == parameters(OPERATIONS[letter])


def test_every_field_has_its_row_and_the_reverse(table):
    fields = {
        first_name(name, field)
        for name, field in ImagesParameters.model_fields.items()
        if name not in Parameters.model_fields
    }
    shared = {"prompt", "model", "partial_images", "size"}
    shared |= {"output_format", "output_compression"}
    inputs = {"image", "mask"}
    assert set(table) == fields | shared | inputs | OPENAIS


def test_what_is_refused_is_said_to_be(table):
    words = ("Refused", "拒否")
    refused = {name for name, (_, says) in table.items() if says.startswith(words)}
    assert refused == OPENAIS


def test_quality_is_told_as_it_is(text):
    told = {}
    for words, share, echoed in re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \| ([0-9.]+) \| `(\w+)` \|$", text, re.MULTILINE
    ):
        for word in re.findall(r"\w+", words):
            told[word] = (float(share), echoed)
    assert told == QUALITY


def test_every_error_is_in_the_table(text):
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+?) \|", text, re.MULTILINE)
    told = {
        (int(status), kind, code)
        for status, kind, named in rows
        for code in re.findall(r"`(\w+)`", named)
    }
    ours = {c for c in kinds(FluxError) if c.__module__.startswith("flux_api.")}
    assert ModelMissing in ours
    assert {(c.status, c("").type, c.code) for c in ours} <= told
    # What a stored recipe lacks is said by /process alone.
    here = {code: str(status) for status, _, code in told}
    assert {c: s for c, s in codes().items() if not c.startswith("recipe")} == here


def test_the_python_examples_run_one_after_the_other(fake):
    page = (ROOT / PAGES[0]).read_text("utf-8")
    script = "".join(re.findall(r"```python\n(.*?)```", page, re.S))
    done = subprocess.run(
        [sys.executable, "-c", script.replace("http://localhost:8000", fake.url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "image_generation.partial_image" in lines
    assert lines[-2:] == ["image_generation.completed", "invalid_value size 16"]
