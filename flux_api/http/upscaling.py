"""A request for a larger picture, complete."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, WithJsonSchema

from flux_api.core import ImageRequest
from flux_api.errors import InvalidRequest, missing_parameter
from flux_api.http.context import Context
from flux_api.http.model_defaults import Inputs, complete
from flux_api.http.parameters import Parameters
from flux_api.http.values import read_integer, refuse_value
from flux_api.images.decoder import original_size
from flux_api.models.sizes import SizeRules
from flux_api.models.upscale_tiles import tiles_of

if TYPE_CHECKING:
    from PIL.Image import Image

SCALES = (2, 4)
MOST_SIDE = 4096


def _read_scale(value: object) -> int:
    if (scale := read_integer(value)) not in SCALES:
        raise refuse_value(f"Invalid value: '{scale}'. Supported values are: 2 and 4.")
    return scale


Scale = Annotated[
    int | None,
    BeforeValidator(_read_scale),
    WithJsonSchema({"type": "integer", "enum": list(SCALES)}),
]
"""The field of a request that asks for a larger picture."""


def complete_upscale(
    context: Context,
    name: str,
    scale: int | None,
    parameters: Parameters,
    inputs: Inputs,
) -> ImageRequest:
    """The request to the set ``name`` for the one picture of ``inputs``, ``scale``
    times as large (None: what its size says, else 2). InvalidRequest names what cannot
    be honoured, and the largest scale where this one is too large."""
    if not inputs.images:
        raise missing_parameter("image")
    if inputs.mask_image is not None:
        raise InvalidRequest("An upscale takes no mask.", param="mask")
    # Before anything is drawn: the size follows from the picture that was sent.
    scale = _choose_scale(inputs.images[0].size, scale, parameters)
    width, height = (side * scale for side in inputs.images[0].size)
    _check_scale(inputs.images[0], scale)
    # The model's own grid is that of the tiles.
    sizes = SizeRules(1, 1, MOST_SIDE, (width, height), MOST_SIDE**2)
    asked = parameters.model_copy(update={"width": width, "height": height})
    info = replace(context.models[name], sizes=sizes)
    request = complete(context, name, "upscale", asked, inputs, model=info)
    tiling = tiles_of((width, height), info.native_size)
    return replace(request, tiles=len(tiling.boxes))


def _choose_scale(
    size: tuple[int, int], scale: int | None, parameters: Parameters
) -> int:
    """A recipe tells the size that came out; any other is refused."""
    param = parameters.size_param or "width"
    if parameters.size == (None, None):
        if parameters.aspect_ratio is None:
            return scale or SCALES[0]
        param = "aspect_ratio"
    for factor in SCALES if scale is None else (scale,):
        if parameters.size == (size[0] * factor, size[1] * factor):
            return factor
    message = "The size of an upscale follows from its 'scale': leave it out."
    raise InvalidRequest(message, param=param)


def _check_scale(picture: Image, scale: int) -> None:
    width, height = picture.size
    most = MOST_SIDE // max(width, height)
    if scale <= most:
        return
    largest = max((factor for factor in SCALES if factor <= most), default=None)
    advice = f"try scale={largest}" if largest else "send a smaller picture"
    size = f"{width}x{height}"
    if (sent := original_size(picture)) != picture.size:
        # Whoever sent it knows that one alone.
        size += ", to which {}x{} is scaled down as".format(*sent)
        size += " it has more than 4.2 megapixels,"
    raise InvalidRequest(
        f"Invalid scale '{scale}': {size} would become larger than "
        f"{MOST_SIDE} pixels a side; {advice}.",
        param="scale",
    )
