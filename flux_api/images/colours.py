"""The samples of a decoded picture become 8-bit sRGB, and its alpha apart."""

from __future__ import annotations

from io import BytesIO

import numpy
from PIL import Image, ImageCms

from flux_api.images.limits import HeaderError

_PROFILE_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours in L, RGB or CMYK, and the alpha channel."""
    if image.mode.startswith("I;16"):
        return _split_grey16(image)
    if image.mode in ("I", "F"):
        raise HeaderError("has 32-bit samples, which are not supported")
    if image.mode in ("RGBA", "LA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    if image.mode in ("PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return image.convert("RGB"), image.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def scale_key(image: Image.Image, depth: int) -> int | bytes | tuple[int, ...]:
    """A PNG's transparent colour in the samples that Pillow makes of ``depth`` bits."""
    key: int | bytes | tuple[int, ...] = image.info["transparency"]
    if isinstance(key, tuple) and depth == 16:
        return tuple(sample >> 8 for sample in key)
    if isinstance(key, int) and image.mode == "L":
        return key * 255 // ((1 << depth) - 1)
    return key


def _split_grey16(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scaled to 8 bits: Pillow's own conversion cuts everything above 255 off."""
    samples = numpy.asarray(image)
    grey = Image.fromarray((samples >> 8).astype(numpy.uint8))
    key = image.info.get("transparency")
    if key is None:
        return grey, None
    return grey, Image.fromarray(numpy.where(samples == key, 0, 255).astype("uint8"))


def open_profile(profile: bytes | None) -> ImageCms.ImageCmsProfile | None:
    """An embedded colour profile; a corrupt one is refused."""
    try:
        return ImageCms.ImageCmsProfile(BytesIO(profile)) if profile else None
    except OSError as error:
        raise HeaderError("has a corrupt colour profile") from error


def to_srgb(
    image: Image.Image, profile: ImageCms.ImageCmsProfile | None
) -> Image.Image:
    """A new picture in RGB, converted where the profile asks for it."""
    if profile is None or not _needs_conversion(image.mode, profile):
        return image.convert("RGB")
    converted = ImageCms.profileToProfile(image, profile, _SRGB, outputMode="RGB")
    assert converted is not None
    return converted


def _needs_conversion(mode: str, profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether the profile is for such colours, and another one than sRGB."""
    facts = profile.profile
    if _PROFILE_MODES.get(facts.xcolor_space.strip()) != mode:
        return False
    return mode != "RGB" or "sRGB" not in (facts.profile_description or "")
