"""The official Python SDK, sync and async, against a real server: what works."""

from __future__ import annotations

import base64
import io
import time
import warnings

import openai
import pytest
from openai.types import (
    ImageEditCompletedEvent,
    ImageEditPartialImageEvent,
    ImageGenCompletedEvent,
    ImageGenPartialImageEvent,
    ImagesResponse,
)
from PIL import Image, ImageDraw

from tests.support.pictures import save
from tests.support.sdk import BOTH, SMALL, call, stream
from tests.support.wire import stats


def picture(b64_json):
    return Image.open(io.BytesIO(base64.b64decode(b64_json)))


@BOTH
def test_generate(api, kind):
    answer = call(
        kind,
        api,
        lambda client: client.images.generate(
            prompt="a duck",
            n=2,
            quality="low",
            output_format="jpeg",
            output_compression=80,
            background="auto",
            moderation="low",
            safety_identifier="me",
            extra_body={"seed": 7, "num_inference_steps": 2},
            **SMALL,
        ),
    )
    assert isinstance(answer, ImagesResponse)
    assert abs(answer.created - time.time()) < 60
    assert [item.seed for item in answer.data] == [7, 8]
    assert [picture(item.b64_json).size for item in answer.data] == [(64, 64)] * 2
    assert [item.url for item in answer.data] == [None, None]
    assert picture(answer.data[0].b64_json).format == "JPEG"
    assert (answer.size, answer.output_format) == ("64x64", "jpeg")
    assert (answer.quality, answer.background) == ("low", "opaque")
    assert answer.usage.total_tokens == answer.usage.input_tokens + 2 * 16
    assert answer.safety_identifier == "me"
    assert answer._request_id.startswith("req_")


def images_of(png, tmp_path):
    """Every way in which Python code hands a picture to the SDK."""
    path = tmp_path / "a.png"
    path.write_bytes(png)
    named = io.BytesIO(png)
    named.name = "b.png"
    return {
        "path": path,
        "bytes": png,
        "BytesIO": io.BytesIO(png),
        "named BytesIO": named,
        "tuple": ("c.png", png, "image/png"),
        "list": [("d.png", png)],
        "two": [png, path],
    }


@BOTH
@pytest.mark.parametrize(
    "given", ["path", "bytes", "BytesIO", "named BytesIO", "tuple", "list", "file"]
)
def test_edit_one_image_however_it_is_given(fake, png, tmp_path, kind, given):
    with open(images_of(png, tmp_path)["path"], "rb") as file:
        image = file if given == "file" else images_of(png, tmp_path)[given]
        answer = call(
            kind, fake, lambda c: c.images.edit(image=image, prompt="x", n=1, **SMALL)
        )
    assert answer.size == "64x64"
    assert stats(fake)["requests"][-1]["images"] == [[96, 64]]


@BOTH
def test_edit_a_list_of_images(fake_multi, png, tmp_path, kind):
    image = images_of(png, tmp_path)["two"]
    call(kind, fake_multi, lambda c: c.images.edit(image=image, prompt="x", **SMALL))
    assert stats(fake_multi)["requests"][-1]["images"] == [[96, 64]] * 2


@BOTH
def test_edit_a_list_of_images_is_refused_by_a_model_of_one(fake, png, tmp_path, kind):
    image = images_of(png, tmp_path)["two"]
    with pytest.raises(openai.BadRequestError, match="at most 1 input image"):
        call(kind, fake, lambda c: c.images.edit(image=image, prompt="x", **SMALL))


def test_edit_with_a_mask_keeps_what_is_opaque(api, png):
    mask = Image.new("RGBA", (96, 64), (0, 0, 0, 255))
    ImageDraw.Draw(mask).rectangle((48, 0, 95, 63), fill=(0, 0, 0, 0))
    answer = call(
        "sync",
        api,
        lambda client: client.images.edit(
            image=png,
            mask=save(mask),
            prompt="a red heart",
            size="auto",
            extra_body={"seed": 1, "steps": 2},
        ),
    )
    made, source = picture(answer.data[0].b64_json), Image.open(io.BytesIO(png))
    assert made.size == source.size == (96, 64)
    kept = (0, 0, 44, 64)
    assert made.crop(kept).tobytes() == source.crop(kept).tobytes()
    assert made.tobytes() != source.tobytes()


@BOTH
def test_variation(api, png, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        answer = call(
            kind,
            api,
            lambda client: client.images.create_variation(
                image=png, n=2, size="64x64", extra_body={"seed": 3, "steps": 2}
            ),
        )
    assert [item.seed for item in answer.data] == [3, 4]
    assert picture(answer.data[0].b64_json).size == (64, 64)


@BOTH
def test_generate_streams_with_partial_images(api, kind):
    steps = {"num_inference_steps": 6}
    events = stream(
        kind, api, "generate", prompt="x", partial_images=2, extra_body=steps, **SMALL
    )
    *partials, completed = events
    assert [type(event) for event in partials] == [ImageGenPartialImageEvent] * 2
    assert [event.partial_image_index for event in partials] == [0, 1]
    assert isinstance(completed, ImageGenCompletedEvent)
    assert completed.type == "image_generation.completed"
    assert picture(completed.b64_json).size == (64, 64)
    assert completed.usage.input_tokens_details.image_tokens == 0


@BOTH
def test_edit_streams_with_partial_images(fake, png, kind):
    events = stream(
        kind, fake, "edit", image=png, prompt="x", partial_images=3, **SMALL
    )
    *partials, completed = events
    assert [type(event) for event in partials] == [ImageEditPartialImageEvent] * 3
    assert isinstance(completed, ImageEditCompletedEvent)


def test_explicit_nulls_are_absent(fake):
    nulls = ("model", "n", "size", "quality", "background", "stream", "svg", "style")
    answer = call(
        "sync",
        fake,
        lambda c: c.images.generate(prompt="x", **dict.fromkeys(nulls)),
    )
    assert answer.size == "512x512"


def test_base_url_without_v1(fake):
    answer = call(
        "sync", fake.url, lambda c: c.images.generate(prompt="x", size="64x64")
    )
    assert answer.data[0].b64_json


def test_azure_client(fake, png):
    with openai.AzureOpenAI(
        api_key="none", azure_endpoint=fake.url, api_version="2025-04-01-preview"
    ) as client:
        assert client.images.generate(prompt="x", **SMALL).data[0].b64_json
        assert client.images.edit(image=png, prompt="x", **SMALL).data[0].b64_json
        assert client.models.list().data[0].id == "tiny"
    assert stats(fake)["arrived"][0][0] == (
        "/openai/deployments/gpt-image-2/images/generations"
    )


@BOTH
def test_models(fake, kind):
    model = call(kind, fake, lambda client: client.models.retrieve("tiny"))
    assert (model.id, model.object) == ("tiny", "model")
    with pytest.raises(openai.NotFoundError) as caught:
        call(kind, fake, lambda client: client.models.retrieve("bfl/FLUX.1 dev?"))
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
