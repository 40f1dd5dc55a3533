"""Pictures onto the square that a model works at, and back to the size asked for."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

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
        """``image`` in the square; its edge pixels run on into the rest."""
        left, upper, right, lower = self.box
        small = image.resize((right - left, lower - upper), Image.Resampling.LANCZOS)
        return extend(small, (self.side, self.side), (left, upper))

    def from_square(self, square: Image.Image, target: Size) -> Image.Image:
        """The picture's part of ``square``, at ``target`` = (width, height): whole and
        in its own shape, its edge pixels running on where the shapes differ."""
        return contain(square.crop(self.box), target)


def contain(image: Image.Image, target: Size) -> Image.Image:
    """``image`` scaled to lie whole in ``target``, centred, its edges running on."""
    scale = min(target[0] / image.width, target[1] / image.height)
    width = min(target[0], max(1, round(image.width * scale)))
    height = min(target[1], max(1, round(image.height * scale)))
    if abs(width - target[0]) <= 1 and abs(height - target[1]) <= 1:
        width, height = target
    scaled = image.resize((width, height), Image.Resampling.BICUBIC)
    return extend(scaled, target, ((target[0] - width) // 2, (target[1] - height) // 2))


def extend(image: Image.Image, target: Size, offset: tuple[int, int]) -> Image.Image:
    """``image`` at ``offset`` in a canvas of ``target``, its edge pixels repeated
    outwards."""
    if image.size == target:
        return image
    left, upper = offset
    canvas = Image.new(image.mode, target)
    canvas.paste(image, offset)
    right, lower = left + image.width, upper + image.height
    if left > 0:
        edge = image.crop((0, 0, 1, image.height))
        canvas.paste(edge.resize((left, image.height)), (0, upper))
    if right < target[0]:
        edge = image.crop((image.width - 1, 0, image.width, image.height))
        canvas.paste(edge.resize((target[0] - right, image.height)), (right, upper))
    if upper > 0:
        row = canvas.crop((0, upper, target[0], upper + 1))
        canvas.paste(row.resize((target[0], upper)), (0, 0))
    if lower < target[1]:
        row = canvas.crop((0, lower - 1, target[0], lower))
        canvas.paste(row.resize((target[0], target[1] - lower)), (0, lower))
    return canvas


def composite(
    image: Image.Image, original: Image.Image, mask: Image.Image
) -> Image.Image:
    """``image`` where ``mask`` (L, of any size) is white, ``original`` elsewhere; both
    of the size of ``image``, so that kept pixels are the original's own."""
    mask = mask.resize(image.size, Image.Resampling.BILINEAR)
    original = original.resize(image.size, Image.Resampling.LANCZOS)
    return Image.composite(image, original, mask)
