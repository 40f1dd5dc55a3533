"""Masks of strangers: which area of a picture they mean."""

from __future__ import annotations

from PIL import Image

from flux_api.errors import InvalidImage
from flux_api.images.decoder import Decoder, original_size

# How far a mask's shape may be from its picture's: rounding of a small preview.
_MASK_SHAPE = 0.02


def read_mask(
    decoder: Decoder, data: bytes, *, picture: Image.Image, param: str = "mask"
) -> tuple[Image.Image, list[str]]:
    """The area of ``picture`` to repaint, in mode L and of its size: white where the
    alpha of the mask in ``data`` is 0, black where it is 255, the grey between for a
    soft edge; an opaque mask is white there itself. And sentences on what was
    done to it. InvalidImage names ``param``."""
    mask, is_alpha = decoder.mask(data, param=param)
    notes = []
    if is_alpha:
        area = mask.point(range(255, -1, -1))
    else:
        notes.append(f"The {param} is opaque: its white area is repainted.")
        # JPEG's black is not quite black, and would be repainted a little.
        area = mask.point([0] * 16 + [*range(16, 240)] + [255] * 16)
    notes += _check_shape(original_size(mask), original_size(picture), param)
    if area.size != picture.size:
        area = area.resize(picture.size, Image.Resampling.BILINEAR)
    return decoder.keep(area), notes


def _check_shape(
    mask: tuple[int, int], picture: tuple[int, int], param: str
) -> list[str]:
    """That a mask was scaled, by the sizes in the files, which their senders know.
    InvalidImage where it has another shape."""
    if mask == picture:
        return []
    own, wanted = "{}x{}".format(*mask), "{}x{}".format(*picture)
    if abs(mask[0] * picture[1] / (mask[1] * picture[0]) - 1) > _MASK_SHAPE:
        raise InvalidImage(
            f"{param} is {own} but the image is {wanted}; they must have the same "
            "shape",
            param=param,
            code="invalid_mask_image_format",
        )
    return [f"The {param} was scaled from {own} to {wanted}."]
