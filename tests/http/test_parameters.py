"""Parameters at their very edge, and the sentences about what lies beyond it."""

from __future__ import annotations

import pytest

from flux_api.blueprints.openai.parameters import ImagesParameters
from flux_api.errors import InvalidRequest
from flux_api.http.parameters import Parameters

EDGES = {
    "loras": ([f"name-{n}" for n in range(8)], [f"name-{n}" for n in range(9)]),
    "loras-by-text": (",".join("abcdefgh"), ",".join("abcdefghi")),
    "loras-name": (["n" * 1024], ["n" * 1025]),
    "loras-weight": (
        [{"name": "a", "adapter_weight": -10}],
        [{"name": "a", "adapter_weight": -10.001}],
    ),
    "loras-weight-up": (
        [{"name": "a", "adapter_weight": "10"}],
        [{"name": "a", "adapter_weight": "10.001"}],
    ),
    "prompt": ("p" * 32_000, "p" * 32_001),
    "model": ("m" * 256, "m" * 257),
    "num_inference_steps": (200, 201),
    "partial_images": (3, 4),
    "output_compression": (0, -1),
    "guidance_scale": (100.0, 100.001),
    "seed": (2**64 - 1, 2**64),
    "job_id": ("j" * 64, "j" * 65),
    "job_id-short": ("j" * 8, "j" * 7),
    "width": (10**9, 10**9 + 1),
    "n": (10, 11),
    "user": ("u" * 32_000, "u" * 32_001),
}


@pytest.mark.parametrize("case", EDGES)
def test_what_may_just_be_is_taken_and_what_is_beyond_it_is_not(case):
    name = case.partition("-")[0]
    inside, outside = EDGES[case]
    # Below 100 it says a quality, which PNG has none of.
    form = {"output_format": "jpeg"}
    ImagesParameters.read(form | {name: inside})
    with pytest.raises(InvalidRequest) as refused:
        ImagesParameters.read(form | {name: outside})
    assert refused.value.param == name


SENTENCES = {
    "output_format": (
        {"output_format": "gif"},
        "Invalid value: 'gif'. Supported values are: 'png', 'jpeg', and 'webp'.",
    ),
    "style": (
        {"style": "loud"},
        "Invalid value: 'loud'. Supported values are: 'vivid' and 'natural'.",
    ),
    "num_inference_steps": (
        {"num_inference_steps": 0},
        "Invalid 'num_inference_steps': integer below minimum value. Expected a value "
        ">= 1, but got 0 instead.",
    ),
    "n": (
        {"n": 11},
        "Invalid 'n': integer above maximum value. Expected a value <= 10, but got 11 "
        "instead.",
    ),
    "guidance_scale": (
        {"guidance_scale": 200},
        "Invalid 'guidance_scale': expected a number from 0 to 100.",
    ),
    "user": (
        {"user": "u" * 32_001},
        "Invalid 'user': string too long. Expected at most 32000 characters, but got "
        "32001 instead.",
    ),
    "seed": ({"seed": ["1", "2"]}, "'seed' was given more than once."),
    "loras": (
        {"loras": ["a", "a"]},
        "Invalid 'loras': expected each name once, with its adapter_weight.",
    ),
}


@pytest.mark.parametrize("param", SENTENCES)
def test_what_is_wrong_is_said_in_a_sentence(param):
    values, sentence = SENTENCES[param]
    with pytest.raises(InvalidRequest) as refused:
        ImagesParameters.read(values)
    assert (refused.value.message, refused.value.param) == (sentence, param)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("ink", {"ink": 1.0}),
        ("ink:", {"ink": 1.0}),
        (" ink : 0.5 , wash:-2", {"ink": 0.5, "wash": -2.0}),
        ('["a:b"]', {"a:b": 1.0}),
        ("", {}),
        ("  ", {}),
    ],
)
def test_loras_are_read_out_of_a_forms_text(text, weights):
    found = Parameters.read({"loras": text}).loras
    assert {lora.name: lora.adapter_weight for lora in found} == weights
