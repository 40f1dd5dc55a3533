"""The nouns of a request's way through the server: data only, no I/O.

Words are diffusers' own; HTTP's and OpenAI's end in the blueprints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flux_api.errors import FluxError

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = "0.1.0"
Mode = Literal["generate", "edit", "variation", "upscale"]
Performance = Literal["exact", "speed", "max"]

MOST_SHARING = 13
"""Pictures that share forwards at once. With three that take turns beside them 16 run,
as gunicorn.conf.py's threads allow."""

# torch takes no larger seed.
SEED_MODULUS = 2**64
MAX_SEED = SEED_MODULUS - 1


@dataclass(frozen=True, slots=True)
class Lora:
    """A registered LoRA by ``name``, applied with ``adapter_weight`` (-10..10)."""

    name: str
    adapter_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class InputFile:
    """The file that an input picture came as: its ``sha256``, those of the ``parents``
    that it was made from itself as far as it says so, the nearest first, and the name
    under which the file server has it ``stored`` (None: under none that is known). Its
    content ``credentials`` are an archive of C2PA's library, b"" for none."""

    sha256: str
    parents: tuple[str, ...] = ()
    stored: str | None = None
    credentials: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class ImageRequest:
    """What to draw, complete: every default is already filled in.

    ``width`` and ``height`` are pixels of the picture to deliver, ``images`` are RGB,
    ``mask_image`` is "L" with 255 where to repaint. ``guidance_scale`` is None where
    guidance plays no part. ``seed`` is that of the first of
    ``num_images_per_prompt`` pictures. ``warnings`` are sentences for the caller on
    what was read otherwise than it was sent. ``image_files`` and ``mask_file`` are what
    the pictures came as. A picture is drawn in so many ``tiles``, one after the other,
    each in ``num_inference_steps``. What the server draws for itself is not
    ``delivered``: nobody gets it.
    """

    mode: Mode
    model: str
    prompt: str
    negative_prompt: str | None = None
    images: tuple[Image, ...] = ()
    mask_image: Image | None = None
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float | None
    strength: float | None = None
    num_images_per_prompt: int = 1
    seed: int
    loras: tuple[Lora, ...] = ()
    partial_images: int = 0
    warnings: tuple[str, ...] = ()
    image_files: tuple[InputFile, ...] = ()
    mask_file: InputFile | None = None
    tiles: int = 1
    delivered: bool = True

    @property
    def total_steps(self) -> int:
        """About how many steps one of its pictures takes, all tiles together."""
        steps = self.num_inference_steps
        # Image to image leaves out the first ones; so diffusers counts them.
        left_out = int(steps - steps * (self.strength or 1.0))
        return max(1, steps - left_out) * self.tiles

    @property
    def facts(self) -> dict[str, Any]:
        """What its pictures have in common, by the original API's names, with the seed
        of the first."""
        return {
            "mode": self.mode,
            "model": self.model,
            "width": self.width,
            "height": self.height,
            "seed": self.seed_of(0),
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
        }

    def seed_of(self, index: int) -> int:
        """The seed (0..2^64-1) of picture ``index``: seed + index, modulo 2^64."""
        return (self.seed + index) % SEED_MODULUS


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """One finished picture (RGB, of the size asked for) and the seed that made it.

    ``native_size`` is the (width, height) that the model worked at where the picture
    was scaled from it, else None. ``performance`` is how it was made: another way
    rounds otherwise. ``attempts`` counts how often it was begun, where a process died
    over it.
    """

    image: Image
    seed: int
    native_size: tuple[int, int] | None = None
    performance: Performance = "exact"
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Queued:
    """Waiting; ``position`` counts the requests in front, from 0."""

    position: int


@dataclass(frozen=True, slots=True)
class Started:
    """The first picture of the request is being made."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Step ``step`` of ``total`` of picture ``index`` is done (index from 0)."""

    index: int
    step: int
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """What a device drew of a picture on its way, small: the picture's part of
    ``image`` is ``box`` (left, upper, right, lower; None for all), and it is shown at
    ``size`` (width, height), as :func:`flux_api.images.previews.show_preview` does."""

    image: Image
    box: tuple[int, int, int, int] | None
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class PartialImage:
    """A small preview of picture ``index``; ``number`` counts its previews from 0."""

    index: int
    number: int
    preview: Preview


@dataclass(frozen=True, slots=True, eq=False)
class ImageDone:
    """Picture ``index`` is made, and others of its request are not yet."""

    index: int
    result: ImageResult


@dataclass(frozen=True, slots=True, eq=False)
class Completed:
    """All pictures, in the order of their seeds."""

    results: tuple[ImageResult, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """No pictures: why, as the caller may be told."""

    error: FluxError


Event = Queued | Started | Progress | PartialImage | ImageDone | Completed | Failed


class LoadingProgress(str):
    """What is said of loading, ``text``, and how far it is: ``done`` of ``total``
    ``unit``, "bytes" or "components"."""

    def __new__(cls, text: str, done: int, total: int, unit: str) -> LoadingProgress:
        """The text with its numbers."""
        made = super().__new__(cls, text)
        made.done, made.total, made.unit = done, total, unit
        return made

    done: int
    total: int
    unit: str
