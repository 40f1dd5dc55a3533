"""``python -m benchmarks.device_lock``: CPU time that an edit of a 12 MP photo takes
while it holds the device, over the same edit of a picture of 64x64; embedded model."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator

import torch
from PIL import Image

from benchmarks.encoding import picture
from benchmarks.report import Report, read_options
from flux_api.core import ImageRequest
from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.shared_forward import ForwardBatcher
from flux_api.models.catalog import MODEL_INFO
from flux_api.queue.tasks import Callbacks, Picture

SIDE = 64
PHOTO = (4000, 3000)
QUIET = Callbacks(lambda: None, *[lambda *_: None] * 3)


def main() -> None:
    """Print one line a measurement."""
    options = read_options(__doc__, rounds=15)
    report = Report("device_lock", options.results)
    # All of a picture's work in the thread that is clocked.
    torch.set_num_threads(1)
    clock = _Clock()
    backend = DiffusersBackend(MODEL_INFO, "tiny", batch_tokens=0)
    backend.load(lambda _: None)
    inputs = {"12 MP photo": picture(1024).resize(PHOTO), "small one": picture(SIDE)}
    times: dict[str, list[float]] = {name: [] for name in inputs}
    for number in range(options.rounds):
        # Not always the same after the other: a photo leaves caches cold.
        for name in sorted(inputs, reverse=number % 2 == 0):
            image = inputs[name]
            request = _edit(image, f"a cat {number}")
            backend.prepare(request)
            clock.held = 0.0
            backend.run(Picture(request, 0, "bench"), QUIET)
            times[name].append(clock.held * 1000)
    middle = {name: statistics.median(found) for name, found in times.items()}
    for name, value in middle.items():
        report.add(f"edit of a {name}: CPU while it holds the device", value, "ms")
    photo, small = middle["12 MP photo"], middle["small one"]
    report.add("  the photo's part", photo - small, "ms")
    report.add("  photo over small", photo / small, "x")
    report.write()


class _Clock:
    """CPU seconds of the thread that holds the device, for as long as it does."""

    def __init__(self) -> None:
        self.held = 0.0
        taken = ForwardBatcher.taken

        @contextlib.contextmanager
        def clocked(batcher: ForwardBatcher) -> Iterator[None]:
            with taken(batcher):
                began = time.thread_time()
                try:
                    yield
                finally:
                    self.held += time.thread_time() - began

        ForwardBatcher.taken = clocked  # type: ignore[method-assign]


def _edit(image: Image.Image, prompt: str) -> ImageRequest:
    return ImageRequest(
        mode="edit",
        model="tiny",
        prompt=prompt,
        images=(image,),
        width=SIDE,
        height=SIDE,
        seed=1,
        num_inference_steps=2,
        guidance_scale=1.0,
        strength=1.0,
    )


if __name__ == "__main__":
    main()
