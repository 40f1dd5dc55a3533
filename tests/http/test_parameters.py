"""Parameters at their very edge, and the sentences about what lies beyond it."""

from __future__ import annotations

import pytest

from flux_api.blueprints.a1111.parameters import A1111Parameters, OptionsParameters
from flux_api.blueprints.bfl.parameters import BflParameters
from flux_api.blueprints.bfl.parameters import ResultParameters as TaskParameters
from flux_api.blueprints.jobs import ListParameters, ResultParameters
from flux_api.blueprints.mcp.parameters import ToolParameters
from flux_api.blueprints.openai.parameters import ImagesParameters, UpscaleParameters
from flux_api.blueprints.original import ProcessParameters
from flux_api.errors import InvalidRequest
from flux_api.http.parameters import Parameters
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.sizes import SizeRules

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
    "width-down": (-(10**9), -(10**9) - 1),
    "strength": (1.0, 1.001),
    "strength-down": (0.0, -0.001),
    # Blanks around a word count, too: it is read before they are taken off.
    "output_format": ("png".ljust(64), "png".ljust(65)),
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


EDGES_ELSEWHERE = [
    (BflParameters, "safety_tolerance", 0, -1),
    (BflParameters, "safety_tolerance", 6, 7),
    (BflParameters, "image_prompt_strength", 0.0, -0.001),
    (BflParameters, "image_prompt_strength", 1.0, 1.001),
    (BflParameters, "webhook_secret", "s" * 1024, "s" * 1025),
    (TaskParameters, "id", "i" * 256, "i" * 257),
    (A1111Parameters, "batch_size", 1, 0),
    (A1111Parameters, "batch_size", 10, 11),
    (A1111Parameters, "n_iter", 1, 0),
    (A1111Parameters, "n_iter", 10, 11),
    (A1111Parameters, "denoising_strength", 0.0, -0.001),
    (A1111Parameters, "denoising_strength", 1.0, 1.001),
    (OptionsParameters, "sd_model_checkpoint", "m" * 256, "m" * 257),
    (ProcessParameters, "recipe_of", "r" * 4096, "r" * 4097),
    (ProcessParameters, "bearer_token", "t" * 4096, "t" * 4097),
    (ImagesParameters, "safety_identifier", "u" * 32_000, "u" * 32_001),
    (ListParameters, "limit", 1, 0),
    (ListParameters, "limit", 1000, 1001),
    (
        ListParameters,
        "ids",
        ",".join(f"job-{n:05}" for n in range(100)),
        ",".join(f"job-{n:05}" for n in range(101)),
    ),
    (ResultParameters, "index", 0, -1),
    # The last of as many pictures as a request may ask for.
    (ResultParameters, "index", 9, 10),
]


@pytest.mark.parametrize(
    ("kind", "name", "inside", "outside"),
    EDGES_ELSEWHERE,
    ids=[
        f"{kind.__name__}-{name}-{n}"
        for n, (kind, name, *_) in enumerate(EDGES_ELSEWHERE)
    ],
)
def test_so_it_is_with_what_other_routes_take(kind, name, inside, outside):
    kind.read({name: inside})
    with pytest.raises(InvalidRequest) as refused:
        kind.read({name: outside})
    assert refused.value.param == name


def test_ten_pictures_may_come_of_both_numbers_together():
    assert A1111Parameters.read({"batch_size": 5, "n_iter": 2}).num_images == 10
    with pytest.raises(InvalidRequest, match="At most 10 pictures"):
        A1111Parameters.read({"batch_size": 4, "n_iter": 3})


def bounds(kind):
    """Each parameter of ``kind`` with the least and the most that its description
    allows."""
    for name, field in kind.model_json_schema()["properties"].items():
        told = field["anyOf"][0] if "anyOf" in field else field
        if "minimum" in told:
            yield name, told["minimum"], told["maximum"]


@pytest.mark.parametrize(
    "kind",
    [
        *(BflParameters, A1111Parameters, ToolParameters, ProcessParameters),
        *(UpscaleParameters, ListParameters, ResultParameters),
    ],
)
def test_the_description_tells_the_bounds_that_are_kept(kind):
    form = {"output_format": "jpeg"} if "output_format" in kind.model_fields else {}
    found = list(bounds(kind))
    assert found
    for name, least, most in found:
        for value in (least, most):
            kind.read(form | {name: value})
        # Every negative seed is a random one, and which sides are legal the model says.
        if name not in ("width", "height"):
            with pytest.raises(InvalidRequest):
                kind.read(form | {name: most + 1})
        if name not in ("width", "height", "seed"):
            with pytest.raises(InvalidRequest):
                kind.read(form | {name: least - 1})


def test_sides_are_told_as_far_as_any_model_goes():
    told = {name: (least, most) for name, least, most in bounds(Parameters)}
    least, most = told["width"]
    assert told["height"] == told["width"]
    assert least < most
    for info in MODEL_INFO.values():
        assert least <= info.sizes.minimum < info.sizes.maximum <= most
    assert told["seed"] == (-1, 2**64 - 1)


def test_loras_are_described_as_they_are_read():
    told = Parameters.model_json_schema()["properties"]["loras"]
    fields = told["items"]["properties"]
    weight, name = fields["adapter_weight"], fields["name"]
    [read] = Parameters.read({"loras": [{"name": "a"}]}).loras
    assert read.adapter_weight == weight["default"]
    longest = {"name": "n" * name["maxLength"]}
    for wrong in (
        [{"name": "a", "adapter_weight": weight["maximum"] + 0.1}],
        [{"name": "a", "adapter_weight": weight["minimum"] - 0.1}],
        [{"name": "n" * (name["maxLength"] + 1)}],
        [{"name": "n" * (name["minLength"] - 1)}],
        [{"name": "a", "weight": 1.0}],
        [{"name": f"n{number}"} for number in range(told["maxItems"] + 1)],
    ):
        with pytest.raises(InvalidRequest):
            Parameters.read({"loras": wrong})
    for right in (
        [longest | {"adapter_weight": weight["maximum"]}],
        [{"name": "n" * name["minLength"], "adapter_weight": weight["minimum"]}],
        [{"name": f"n{number}"} for number in range(told["maxItems"])],
    ):
        assert len(Parameters.read({"loras": right}).loras) == len(right)
    assert fields.keys() == {"name", "adapter_weight"}
    assert told["items"]["additionalProperties"] is False


def test_the_thinnest_shape_is_still_one():
    rules = SizeRules(minimum=16, default=(16, 16))
    for ratio in ("9999:1", "1:9999"):
        thin = Parameters.read({"aspect_ratio": ratio}).in_shape(rules)
        assert all(rules.allows(side) for side in thin.size), ratio


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
    "seed": (
        {"seed": ["1", "2"]},
        "'seed' was given more than once: send one value, not a list.",
    ),
    "width": ({"width": ["1"]}, "Invalid 'width': expected an integer."),
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


@pytest.mark.parametrize("text", ["[", '{"name": "ink"', "[" * 100_000])
def test_loras_that_are_broken_json_are_told_so(text):
    with pytest.raises(InvalidRequest, match="the JSON is malformed"):
        Parameters.read({"loras": text})


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
