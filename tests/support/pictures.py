"""Pictures that tests send."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw


def save(image, kind="PNG", **options):
    """The file's bytes, written by Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_png(size=(96, 64), color="orange"):
    """PNG bytes of a disc on white."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((8, 8, size[0] - 8, size[1] - 8), fill=color)
    return save(image)
