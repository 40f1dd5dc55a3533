"""``python -m benchmarks.encoding``: what a picture of 1024x1024 costs on its way out
and in, against what Python's and Pillow's own ways take.

CPU time. The picture has edges and a little grain, as photos have.
"""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pybase64
from PIL import Image, ImageFilter

from benchmarks.report import Report, read_options, seconds
from flux_api.core import ImageRequest
from flux_api.engine.inputs import fit_inputs
from flux_api.http.json_text import to_json
from flux_api.images.codec import encode_image
from flux_api.images.data_urls import decode_base64
from flux_api.models.catalog import MODEL_INFO

SIDE = 1024


def main() -> None:
    """Print one line a measurement."""
    options = read_options(__doc__, rounds=15)
    rounds, report = options.rounds, Report("encoding", options.results)
    image = picture(SIDE)
    data = encode_image(image).data
    text = base64.b64encode(data).decode()
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "PNG": (lambda: encode_image(image), lambda: image.save(BytesIO(), "PNG")),
        "JSON reply": (lambda: _reply(data), lambda: _plain_reply(data)),
        "Base64 read": (
            lambda: decode_base64(text, param="image"),
            lambda: base64.b64decode(text, validate=True),
        ),
    }
    for name, (ours, plain) in pairs.items():
        own, usual = _medians(rounds, ours, plain)
        report.add(f"{name}: ours", own * 1000, "ms")
        report.add(f"{name}: the usual way", usual * 1000, "ms")
        report.add(f"{name}: usual over ours", usual / own, "x")
    photo = picture(SIDE).resize((4000, 3000))
    for name in ("tiny", "klein-4b"):
        info = MODEL_INFO[name]
        asked = _edit(name, photo)
        task = info.task("edit", masked=False)
        [spent] = _medians(rounds, lambda a=asked, i=info, t=task: fit_inputs(a, i, t))
        report.add(f"a photo of 12 MP shrunk for {name}, once", spent * 1000, "ms")
        fitted = fit_inputs(asked, info, task).images[0]
        report.add(f"  pixels left of it for {name}", fitted.width * fitted.height, "")
    report.write()


def picture(side: int) -> Image.Image:
    """A picture with edges, smooth grounds and grain."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 255, (8, 8, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    edges = Image.fromarray(coarse[::-1]).resize((side, side), Image.Resampling.NEAREST)
    mixed = Image.blend(smooth, edges.filter(ImageFilter.BoxBlur(1)), 0.3)
    grain = random.normal(0, 2, (side, side, 3))
    pixels = (np.asarray(mixed) + grain).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def _medians(rounds: int, *works: Callable[[], object]) -> list[float]:
    """The median CPU seconds of each, taken in turns."""
    found: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, found, strict=True):
            times.append(seconds(work, clock=time.process_time))
    return [statistics.median(times) for times in found]


def _reply(data: bytes) -> bytes:
    return to_json({"data": [{"b64_json": pybase64.b64encode_as_string(data)}]})


def _plain_reply(data: bytes) -> bytes:
    text = base64.b64encode(data).decode()
    return json.dumps({"data": [{"b64_json": text}]}).encode()


def _edit(name: str, photo: Image.Image) -> ImageRequest:
    return ImageRequest(
        mode="edit",
        model=name,
        prompt="a cat",
        images=(photo,),
        width=SIDE,
        height=SIDE,
        num_inference_steps=4,
        guidance_scale=None,
        seed=1,
    )


if __name__ == "__main__":
    main()
