"""Previews as they are looked at."""

from __future__ import annotations

from PIL import Image

from flux_api.core import Preview
from flux_api.images.fitting import contain


def show_preview(preview: Preview) -> Image.Image:
    """``preview`` as it is looked at: by who reads it, not by who draws it."""
    image = preview.image if preview.box is None else preview.image.crop(preview.box)
    return contain(image, preview.size)
