"""Pictures onto the square that a model works at, and back to the size asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy
from PIL import Image, ImageChops

Size = tuple[int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Fit:
    """How a picture of ``size`` = (width, height) lies in a square of ``side`` pixels:
    whole, centred, in its own shape."""

    side: int
    size: Size

    @property
    def box(self) -> Box:
        """(left, upper, right, lower) of the picture within the square."""
        scale = self.side / max(self.size)
        width = max(1, round(self.size[0] * scale))
        height = max(1, round(self.size[1] * scale))
        left, upper = (self.side - width) // 2, (self.side - height) // 2
        return left, upper, left + width, upper + height

    def onto_square(self, image: Image.Image) -> Image.Image:
        """``image`` in the square, the rest in the colour of its border."""
        left, upper, right, lower = self.box
        small = image.resize((right - left, lower - upper), Image.Resampling.LANCZOS)
        return pad(small, (self.side, self.side), (left, upper))

    def from_square(self, square: Image.Image, target: Size) -> Image.Image:
        """The picture's part of ``square``, at ``target`` = (width, height): whole and
        in its own shape; see :func:`contain` for where the shapes differ."""
        return contain(square.crop(self.box), target)


def contain(image: Image.Image, target: Size) -> Image.Image:
    """``image`` scaled to lie whole in ``target``, centred. What remains is filled with
    the colour of its border, into which it fades."""
    size, offset = _place(image.size, target)
    scaled = image.resize(size, Image.Resampling.BICUBIC)
    if size == target:
        return scaled
    canvas = Image.new(image.mode, target, border_colour(image))
    canvas.paste(scaled, offset, _fading(size, target))
    return canvas


def contain_mask(mask: Image.Image, target: Size) -> Image.Image:
    """``mask`` (L) as :func:`contain` places its picture; what remains is kept (0)."""
    size, offset = _place(mask.size, target)
    canvas = Image.new("L", target, 0)
    canvas.paste(mask.resize(size, Image.Resampling.BILINEAR), offset)
    return canvas


def _place(size: Size, target: Size) -> tuple[Size, tuple[int, int]]:
    """The size and offset at which a picture of ``size`` lies whole in ``target``."""
    scale = min(target[0] / size[0], target[1] / size[1])
    width = min(target[0], max(1, round(size[0] * scale)))
    height = min(target[1], max(1, round(size[1] * scale)))
    # A pixel is a rounding, not another shape: no border for its sake.
    if abs(width - target[0]) <= 1 and abs(height - target[1]) <= 1:
        return target, (0, 0)
    return (width, height), ((target[0] - width) // 2, (target[1] - height) // 2)


def pad(image: Image.Image, target: Size, offset: tuple[int, int]) -> Image.Image:
    """``image`` at ``offset`` in a canvas of ``target`` in the colour of its border."""
    canvas = Image.new(image.mode, target, border_colour(image))
    canvas.paste(image, offset)
    return canvas


def border_colour(image: Image.Image) -> Any:
    """The median of the outermost pixels, in the mode of ``image``."""
    samples = numpy.asarray(image)
    edges = (samples[0], samples[-1], samples[:, 0], samples[:, -1])
    edge = numpy.sort(numpy.concatenate(edges), axis=0)
    median = edge[len(edge) // 2].tolist()
    return tuple(median) if edge.ndim > 1 else median


def _fading(size: Size, target: Size) -> Image.Image:
    """A mask (L) that fades out towards the sides where ``size`` leaves room."""
    width, height = size
    across = _ramp(width) if width < target[0] else Image.new("L", (width, 1), 255)
    down = _ramp(height) if height < target[1] else Image.new("L", (height, 1), 255)
    down = down.transpose(Image.Transpose.ROTATE_90)
    return ImageChops.multiply(across.resize(size), down.resize(size))


def _ramp(length: int) -> Image.Image:
    """A line of ``length`` that rises to 255 within a sixteenth and falls again."""
    fade = max(1, length // 16)
    values = [min(255, 255 * min(i, length - 1 - i) // fade) for i in range(length)]
    return Image.frombytes("L", (length, 1), bytes(values))


def composite(
    image: Image.Image, original: Image.Image, mask: Image.Image
) -> Image.Image:
    """``image`` where ``mask`` (L, of any size) is white, ``original`` elsewhere; both
    of the size of ``image``, so that kept pixels are the original's own."""
    mask = mask.resize(image.size, Image.Resampling.BILINEAR)
    original = original.resize(image.size, Image.Resampling.LANCZOS)
    return Image.composite(image, original, mask)
