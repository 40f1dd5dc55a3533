"""Complete requests, as the API makes them, for tests below HTTP."""

from __future__ import annotations

from flux_api.blueprints.openai.parameters import ImagesParameters
from flux_api.http.model_defaults import Inputs, choose_mode, complete_request


def complete(
    name, info, mode=None, *, images=(), mask_image=None, size=None, n=1, **values
):
    """The ImageRequest to ``info``; ``size`` is (width, height)."""
    values |= {"n": n, "size": "{}x{}".format(*size) if size else None}
    parameters = ImagesParameters.read(values)
    mode = mode or choose_mode(parameters.prompt, images)
    return complete_request(name, info, mode, parameters, Inputs(images, mask_image))
