"""Content credentials, by C2PA's specification 2.2: what a picture's manifest says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flux_api.core import VERSION
from flux_api.images.recipe import source_type

MOST_BYTES = 8 << 20
"""What the credentials of all input pictures of one request may take together."""


def describe_input(index: int) -> dict[str, str]:
    """What is said of input picture ``index``, from 0, as an ingredient: the first is
    the one that was worked on, others were looked at."""
    relationship = "inputTo" if index else "parentOf"
    label = f"input_{index}"
    title = f"input picture {index + 1}"
    return {"title": title, "relationship": relationship, "label": label}


def make_manifest(mode: str, kept: Sequence[bytes]) -> str:
    """What is said of a picture of ``mode``, as JSON for the library. ``kept`` are the
    archived credentials of its input pictures, b"" for each that has none."""
    labels = [describe_input(index)["label"] for index in range(len(kept))]
    source = {"digitalSourceType": source_type(mode)}
    actions: list[dict[str, Any]] = []
    if labels:
        opened = {"ingredientIds": labels[:1]}
        actions.append({"action": "c2pa.opened", "parameters": opened})
        edited: dict[str, Any] = {"action": "c2pa.edited"} | source
        if others := labels[1:]:
            edited["parameters"] = {"ingredientIds": others}
        actions.append(edited)
    else:
        actions.append({"action": "c2pa.created"} | source)
    plain = [describe_input(i) for i, archive in enumerate(kept) if not archive]
    assertion = {"label": "c2pa.actions.v2", "data": {"actions": actions}}
    generator = {"name": "Flux Imaging API", "version": VERSION}
    manifest = {
        "claim_generator_info": [generator],
        "ingredients": plain,
        "assertions": [assertion],
    }
    return json.dumps(manifest)
