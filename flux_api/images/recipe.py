"""A picture's mark as synthetic and its recipe: what stands in its XMP, and in the text
that AUTOMATIC1111's tools read."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Mapping
from typing import Any, get_args

from flux_api.core import VERSION, Mode

Recipe = dict[str, Any]
"""How a picture was made, by the names of the request's own parameters, for JSON:

    recipe                   the version of this form, 1
    strength                 where it is not the model's own
    software, mode, model, revision, seed, width, height, num_inference_steps,
    guidance_scale, performance, output_format, output_compression
    loras                    each with name, adapter_weight and the sha256 of its file
    prompt, negative_prompt  or, where they are not told, prompt_sha256 and
                             negative_prompt_sha256 of their UTF-8
    inputs, mask             the SHA-256 of the files that were sent
    parents                  those of the pictures that the inputs were made from
    picture_sha256           of the file's picture data, see ``picture_data``
"""

FORM = 1
SOFTWARE = f"Flux Imaging API {VERSION}"
# A picture of pictures of pictures: each would carry all that came before.
MOST_PARENTS = 16
_FIELDS = (
    *("model", "prompt", "negative_prompt", "seed", "width", "height"),
    *("num_inference_steps", "guidance_scale", "strength"),
    *("output_format", "output_compression"),
)
PROMPTS = ("prompt", "negative_prompt")

_SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
# XML allows no such characters, and entities would be another layer to read.
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\ufffe\uffff"}
_XMP = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\
<x:xmpmeta xmlns:x="adobe:ns:meta/">\
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about=""{namespaces}>{properties}</rdf:Description>\
</rdf:RDF></x:xmpmeta><?xpacket end="r"?>"""
_NAMESPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "flux": "urn:flux-imaging-api:",
}
_FOUND = re.compile(rb"<flux:Recipe>([^<]{2,1000000})</flux:Recipe>")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def source_type(mode: str) -> str:
    """IPTC's word, a URI, for what a picture of ``mode`` is."""
    if mode == "generate":
        return _SYNTHETIC + "trainedAlgorithmicMedia"
    return _SYNTHETIC + "compositeWithTrainedAlgorithmicMedia"


def make_xmp(mode: str, recipe: Recipe | None = None) -> bytes:
    """The packet that says that a picture of ``mode`` is synthetic, as IPTC has it, and
    how it was made."""
    properties = {"Iptc4xmpExt:DigitalSourceType": source_type(mode)}
    if recipe is not None:
        properties["flux:Recipe"] = to_text(recipe).translate(_ESCAPED)
    used = {name.partition(":")[0] for name in properties}
    namespaces = "".join(
        f' xmlns:{name}="{uri}"' for name, uri in _NAMESPACES.items() if name in used
    )
    told = "".join(f"<{name}>{text}</{name}>" for name, text in properties.items())
    return _XMP.format(namespaces=namespaces, properties=told).encode()


def to_text(recipe: Recipe) -> str:
    """The recipe as compact JSON."""
    return json.dumps(recipe, ensure_ascii=False, separators=(",", ":"))


def read_recipe(data: bytes) -> Recipe | None:
    """The recipe in a picture's file, None where there is none; ValueError where there
    is one that cannot be read. Anybody may have written it: nothing in it is certain
    but its form."""
    if (found := _FOUND.search(data)) is None:
        return None
    # Programs that write a picture's XMP anew use entities.
    return parse_recipe(html.unescape(found[1].decode()))


def parse_recipe(text: str | bytes) -> Recipe:
    """What :func:`to_text` wrote; ValueError for anything else, and for a recipe of a
    later form."""
    try:
        recipe = json.loads(text)
        form = recipe["recipe"]
        lists = [recipe.get(name, []) for name in ("inputs", "parents", "loras")]
        is_later = type(form) is int and form > FORM
        is_known = (
            form == FORM
            and all(isinstance(one, list) for one in lists)
            and all(isinstance(lora, dict) for lora in lists[2])
            and recipe.get("mode") in get_args(Mode)
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        is_later = is_known = False
    if is_later:
        raise ValueError("the recipe was written by a later version of this program")
    if not is_known:
        raise ValueError("it is not a recipe")
    return dict(recipe)


def without_prompts(recipe: Recipe) -> Recipe:
    """The recipe with the hashes of its prompts in their place."""
    told: Recipe = {}
    for name, value in recipe.items():
        if name in PROMPTS:
            told[f"{name}_sha256"] = hash_of(value.encode())
        else:
            told[name] = value
    return told


def fields_of(recipe: Recipe) -> dict[str, Any]:
    """What to ask for to get the same picture, beside its input pictures: parameters
    of a request by their names."""
    fields = {name: recipe[name] for name in _FIELDS if name in recipe}
    if loras := recipe.get("loras"):
        known = ("name", "adapter_weight")
        fields["loras"] = [{k: one[k] for k in known if k in one} for one in loras]
    return fields


def parents_of(data: bytes) -> tuple[str, ...]:
    """The hashes of the pictures that an uploaded one was made from, by its recipe, the
    nearest first."""
    try:
        recipe = read_recipe(data) or {}
    except ValueError:
        return ()
    named = [*recipe.get("inputs", []), *recipe.get("parents", [])]
    hashes = [name for name in named if isinstance(name, str)]
    known = dict.fromkeys(name for name in hashes if _SHA256.fullmatch(name))
    return tuple(known)[:MOST_PARENTS]


def hash_of(data: bytes) -> str:
    """The SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def to_parameters(recipe: Recipe, *, distilled_guidance: bool) -> str:
    """The text that AUTOMATIC1111's tools read settings from. ``distilled_guidance``
    says that the guidance is one that the model learned, which they know by another
    name."""
    loras = recipe.get("loras", [])
    tags = [f"<lora:{one['name']}:{one['adapter_weight']:g}>" for one in loras]
    lines = [" ".join([recipe.get("prompt", ""), *tags]).strip()]
    if negative := recipe.get("negative_prompt"):
        lines.append(f"Negative prompt: {negative}")
    guidance = recipe.get("guidance_scale")
    settings: dict[str, object] = {
        "Steps": recipe["num_inference_steps"],
        "Sampler": "Euler",
        "Schedule type": "Simple",
        "CFG scale": 1 if guidance is None or distilled_guidance else guidance,
        "Seed": recipe["seed"],
        "Size": "{width}x{height}".format(**recipe),
        "Model": recipe["model"],
    }
    if "strength" in recipe:
        settings["Denoising strength"] = recipe["strength"]
    if guidance is not None and distilled_guidance:
        settings["Distilled CFG Scale"] = guidance
    if hashes := _lora_hashes(loras):
        settings["Lora hashes"] = hashes
    settings["Version"] = SOFTWARE
    lines.append(", ".join(f"{k}: {_quoted(v)}" for k, v in settings.items()))
    return "\n".join(lines)


def _lora_hashes(loras: list[Mapping[str, Any]]) -> str:
    known = [one for one in loras if "sha256" in one]
    return ", ".join(f"{one['name']}: {one['sha256'][:10]}" for one in known)


def _quoted(value: object) -> str:
    """A value as those tools read it back."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text
