"""Finished pictures marked as synthetic, with their recipes, as FLUX_METADATA says."""

from __future__ import annotations

from typing import Any

from flux_api.core import ImageRequest, Lora
from flux_api.errors import Unavailable
from flux_api.http.context import Context
from flux_api.images.codec import EncodedImage
from flux_api.images.metadata import Metadata, add_metadata, picture_data
from flux_api.images.recipe import (
    FORM,
    MOST_PARENTS,
    SOFTWARE,
    Recipe,
    hash_of,
    make_xmp,
    to_parameters,
    to_text,
    without_prompts,
)
from flux_api.models.digests import digest_of
from flux_api.models.hub import present_file
from flux_api.models.hub_lock import locked_commit
from flux_api.models.sources import Repository

_FACTS = (
    *("mode", "model", "seed", "width", "height", "num_inference_steps"),
    *("guidance_scale", "performance"),
)
# Those of the pipelines whose guidance is the difference to a second forward.
_CLASSIFIER_FREE = "Flux2Klein"


def mark(
    context: Context,
    request: ImageRequest,
    facts: dict[str, Any],
    file: EncodedImage,
    compression: int,
) -> tuple[EncodedImage, str]:
    """``file``, a picture of ``request`` with these ``facts``, as it goes out, and its
    whole recipe as JSON ("" for none). Where a JPEG has no room for the prompts, their
    hashes stand there."""
    if context.settings.metadata == "none":
        return file, ""
    recipe = _write_recipe(context, request, facts)
    recipe["output_format"] = file.media_type.removeprefix("image/")
    if recipe["output_format"] != "png":
        recipe["output_compression"] = compression
    # Of the picture alone: what is written beside it changes no pixel.
    recipe["picture_sha256"] = hash_of(picture_data(file.data))
    roomy = file.media_type != "image/jpeg"
    metadata = _metadata(context, request, recipe, roomy=roomy)
    return add_metadata(file, metadata), to_text(recipe | _stored(request))


def write_infotext(context: Context, request: ImageRequest, seed: int) -> str:
    """What AUTOMATIC1111's tools read settings from: the text that stands in the PNG
    of ``request`` with this ``seed`` too."""
    recipe = _write_recipe(context, request, request.facts | {"seed": seed})
    return to_parameters(recipe, distilled_guidance=_is_distilled(context, request))


def _metadata(
    context: Context, request: ImageRequest, recipe: Recipe, *, roomy: bool
) -> Metadata:
    level = context.settings.metadata
    if level == "mark":
        return Metadata(make_xmp(request.mode))
    if level == "prompt":
        text = to_parameters(recipe, distilled_guidance=_is_distilled(context, request))
        whole = Metadata(make_xmp(request.mode, recipe), text)
        if roomy or whole.fits_jpeg:
            return whole
    return Metadata(make_xmp(request.mode, without_prompts(recipe)))


def _stored(request: ImageRequest) -> Recipe:
    """Under which names the file server has what was sent. Not for the picture's own
    file: who knows such a name can have the input."""
    told: Recipe = {}
    if any(file.stored for file in request.image_files):
        told["stored_inputs"] = [file.stored for file in request.image_files]
    if request.mask_file is not None and request.mask_file.stored:
        told["stored_mask"] = request.mask_file.stored
    return told


def _write_recipe(
    context: Context, request: ImageRequest, facts: dict[str, Any]
) -> Recipe:
    recipe: Recipe = {"recipe": FORM, "software": SOFTWARE}
    recipe |= {name: facts[name] for name in _FACTS if facts.get(name) is not None}
    if request.strength != context.models[request.model].task_of(request).strength:
        recipe["strength"] = request.strength
    source = context.models[request.model].base_model
    if isinstance(source, Repository):
        recipe["revision"] = locked_commit(source) or source.revision
    if request.prompt:
        recipe["prompt"] = request.prompt
    if request.negative_prompt:
        recipe["negative_prompt"] = request.negative_prompt
    if request.loras:
        recipe["loras"] = [_describe(context, request, lora) for lora in request.loras]
    files = request.image_files
    if files:
        recipe["inputs"] = [file.sha256 for file in files]
    if request.mask_file is not None:
        recipe["mask"] = request.mask_file.sha256
    if parents := dict.fromkeys(name for file in files for name in file.parents):
        recipe["parents"] = list(parents)[:MOST_PARENTS]
    return recipe


def _describe(context: Context, request: ImageRequest, lora: Lora) -> dict[str, Any]:
    told: dict[str, Any] = {"name": lora.name, "adapter_weight": lora.adapter_weight}
    own = context.models[request.model].lora_files.get(lora.name)
    try:
        path = present_file(own) if own else context.lora_files.get(lora.name)
    except Unavailable:
        # The folder is gone since; the picture is finished all the same.
        path = None
    if path is not None and (digest := digest_of(path)):
        told["sha256"] = digest
    return told


def _is_distilled(context: Context, request: ImageRequest) -> bool:
    task = context.models[request.model].task_of(request)
    classic = task.guidance_parameter == "true_cfg_scale"
    return not (classic or task.pipeline.startswith(_CLASSIFIER_FREE))
