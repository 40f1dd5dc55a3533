"""docs/openai-compatibility.md says everything, and nothing that is not so."""

from __future__ import annotations

import re
import typing

import pytest
from openai.types import (
    image_create_variation_params,
    image_edit_params,
    image_generate_params,
)

from flux_api import errors
from flux_api.blueprints.openai.parameters import QUALITY, REFUSED, ImagesParameters
from flux_api.http.parameters import Parameters
from flux_api.http.reason_phrases import BY_CODE
from tests.support.servers import ROOT

TEXT = (ROOT / "docs/openai-compatibility.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| ([GEV ]+) \| (.+) \|$", re.MULTILINE)
TABLE = {name: (where.split(), says) for name, where, says in ROW.findall(TEXT)}
# The other is the original API's.
OPENAIS = set(REFUSED) - {"bearer_token"}
OPERATIONS = {
    "G": image_generate_params.ImageGenerateParams,
    "E": image_edit_params.ImageEditParams,
    "V": image_create_variation_params.ImageCreateVariationParams,
}


def parameters(kind):
    """The names in a TypedDict, or in a union of several."""
    members = typing.get_args(kind) or (kind,)
    return {name for member in members for name in typing.get_type_hints(member)}


@pytest.mark.parametrize("letter", OPERATIONS)
def test_every_parameter_of_the_sdk_has_its_row(letter):
    told = {name for name, (where, _) in TABLE.items() if letter in where}
    assert told == parameters(OPERATIONS[letter])


def test_every_field_has_its_row_and_the_reverse():
    fields = {
        field.validation_alias or name
        for name, field in ImagesParameters.model_fields.items()
        if name not in Parameters.model_fields
    }
    shared = {"prompt", "model", "partial_images", "size"}
    shared |= {"output_format", "output_compression"}
    inputs = {"image", "mask"}
    assert set(TABLE) == fields | shared | inputs | OPENAIS


def test_what_is_refused_is_said_to_be():
    refused = {name for name, (_, says) in TABLE.items() if says.startswith("Refused")}
    assert refused == OPENAIS


def test_quality_is_told_as_it_is():
    told = {}
    for words, share, echoed in re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \| ([0-9.]+) \| `(\w+)` \|$", TEXT, re.MULTILINE
    ):
        for word in re.findall(r"\w+", words):
            told[word] = (float(share), echoed)
    assert told == QUALITY


def test_every_error_is_in_the_table():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+?) \|", TEXT, re.MULTILINE)
    told = {
        (int(status), kind, code)
        for status, kind, codes in rows
        for code in re.findall(r"`(\w+)`", codes)
    }
    classes = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.FluxError)
    ]
    assert {(c.status, c("").type, c.code) for c in classes} <= told
    assert set(BY_CODE) <= {code for _, _, code in told}
