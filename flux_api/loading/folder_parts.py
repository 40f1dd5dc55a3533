"""Components in folders of diffusers' layout."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from flux_api.loading.packed_folder import load_packed
from flux_api.loading.placement import Placement
from flux_api.loading.quantization import quantization_of
from flux_api.models.hub import ModelMissing, is_packed_folder, listed

# A file of weights that was saved as a variant, of some number format: "fp16".
_PART = r"(?:-\d+-of-\d+)?"
_VARIANT = re.compile(rf"model{_PART}\.(\w+){_PART}\.safetensors$")

# What reading an index of shards raises that was cut short, or is something else.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def load_folder_part(
    kind: Any,
    name: str,
    folder: Path,
    dtypes: Mapping[str, torch.dtype],
    placement: Placement,
) -> Any:
    """The component ``name`` in ``folder``; off the device again where it will be moved
    there when it is needed. ModelMissing names files and tensors that are missing."""
    files = check_weights(folder, name)
    found = [_VARIANT.search(file) for file in files]
    marks = {one[1] if one else None for one in found}
    variant = marks.pop() if len(marks) == 1 else None
    packed = is_packed_folder(folder)
    if packed and placement.device.type == "cpu":
        # diffusers loads one on GPUs only.
        return load_packed(kind, folder, files, dtypes.get(name, dtypes["default"]))
    # Never a second time.
    wanted = "none" if packed else placement.load_quantization(name)
    part, loading = kind.from_pretrained(
        folder,
        variant=variant,
        output_loading_info=True,
        dtype=dtypes.get(name, dtypes["default"]),
        quantization_config=quantization_of(wanted, name, kind, placement.dtype),
        use_safetensors=True,
        local_files_only=True,
    )
    if missing := sorted(loading["missing_keys"]):
        raise ModelMissing(f"the {name} lacks {listed(missing)}")
    return part.to("cpu") if placement.waits(name) else part


def check_weights(folder: Path, name: str) -> list[str]:
    """The names of the component's files of weights; ModelMissing where one is not
    there, or where what lists them is damaged."""
    files = [path.name for path in folder.glob("*.safetensors")]
    if not files:
        raise ModelMissing(f"there is no .safetensors file of the {name}")
    for index in folder.glob("*.safetensors.index*.json"):
        try:
            weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
            shards = {str(shard) for shard in weight_map.values()}
        except _DAMAGED:
            raise ModelMissing(f"{index.name} of the {name} is damaged") from None
        if missing := sorted(shards - set(files)):
            raise ModelMissing(f"the {name} lacks {listed(missing)}")
    return files
