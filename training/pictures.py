"""The pixel operations that edits are taught and judged by, all done by Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter, ImageOps

BACKGROUNDS = {
    "red": (220, 50, 47),
    "blue": (66, 133, 244),
    "green": (60, 170, 90),
    "yellow": (255, 214, 64),
    "orange": (255, 150, 40),
    "purple": (140, 80, 200),
    "pink": (255, 160, 200),
    "black": (20, 20, 20),
    "gray": (160, 160, 160),
}
# Hue of each word on the circle, and how much of the saturation is kept.
PAINTS = {
    "red": (0.0, 1.0),
    "orange": (0.083, 1.0),
    "yellow": (0.14, 1.0),
    "green": (0.36, 1.0),
    "blue": (0.6, 1.0),
    "purple": (0.76, 0.9),
    "pink": (0.92, 0.6),
}
PIXEL_OPS = ("mono", "mirror", "rot180", "rot90", "blur", "invert")
OPS = (
    "none",
    *PIXEL_OPS,
    *(f"bg_{colour}" for colour in BACKGROUNDS),
    *(f"paint_{colour}" for colour in PAINTS),
)


def on_white(rgba: np.ndarray) -> Image.Image:
    """Return a stored picture as it looks on white."""
    return Image.fromarray(np.ascontiguousarray(rgba[..., :3]))


def apply_op(rgba: np.ndarray, op: str) -> Image.Image:
    """Return a stored picture after the operation."""
    image = on_white(rgba)
    kind, _, colour = op.partition("_")
    if kind == "bg":
        return _put_on(rgba, BACKGROUNDS[colour])
    if kind == "paint":
        return _paint(image, colour)
    if op == "mono":
        return ImageOps.grayscale(image).convert("RGB")
    if op == "mirror":
        return ImageOps.mirror(image)
    if op == "rot180":
        return image.transpose(Image.Transpose.ROTATE_180)
    if op == "rot90":
        return image.transpose(Image.Transpose.ROTATE_90)
    if op == "blur":
        return image.filter(ImageFilter.GaussianBlur(image.width / 24))
    if op == "invert":
        return ImageOps.invert(image)
    return image


def _put_on(rgba: np.ndarray, colour: tuple[int, int, int]) -> Image.Image:
    """Return the picture on a colour: stored RGB is on white, so white is taken out."""
    away = 1 - rgba[..., 3:].astype(np.float32) / 255
    moved = rgba[..., :3] + away * (np.array(colour, np.float32) - 255)
    return Image.fromarray(moved.round().clip(0, 255).astype(np.uint8))


def _hsv(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("HSV"), np.float32) / 255


def _near(hue: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.abs((hue - centre + 0.5) % 1 - 0.5) < width


def _main_hue(hsv: np.ndarray, strong: np.ndarray) -> float:
    bins = np.bincount((hsv[..., 0][strong] * 36).astype(int) % 36, minlength=36)
    wide = bins + np.roll(bins, 1) + np.roll(bins, -1)
    return (float(wide.argmax()) + 0.5) / 36


def colour_of(rgba: np.ndarray) -> str | None:
    """Return the colour word that fits nearly all of a picture's coloured area."""
    hsv = _hsv(on_white(rgba))
    solid = rgba[..., 3] > 128
    strong = solid & (hsv[..., 1] > 0.35) & (hsv[..., 2] > 0.25)
    if strong.sum() < 0.4 * max(solid.sum(), 1):
        return None
    hue = _main_hue(hsv, strong)
    if _near(hsv[..., 0], hue, 0.09)[strong].mean() < 0.7:
        return None
    return min(PAINTS, key=lambda word: abs((hue - PAINTS[word][0] + 0.5) % 1 - 0.5))


def _paint(image: Image.Image, colour: str) -> Image.Image:
    """Return the picture with its main hue, and what is near it, in another colour."""
    hsv = _hsv(image)
    strong = (hsv[..., 1] > 0.35) & (hsv[..., 2] > 0.25)
    near = _near(hsv[..., 0], _main_hue(hsv, strong), 0.12) & (hsv[..., 1] > 0.12)
    hue, keep = PAINTS[colour]
    hsv[..., 0][near] = hue
    hsv[..., 1][near] *= keep
    planes = (hsv * 255).round().astype(np.uint8)
    bands = [Image.fromarray(np.ascontiguousarray(planes[..., i])) for i in range(3)]
    return Image.merge("HSV", bands).convert("RGB")
