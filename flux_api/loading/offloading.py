"""Parts of pipelines that come to the device when they are needed, and leave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from accelerate.utils import send_to_device
from diffusers.hooks import apply_group_offloading

from flux_api.loading.activations import TEXT_PARTS
from flux_api.loading.host_copy import HostCopy, pin

Parts = Mapping[str, torch.nn.Module]
_MARK = "_flux_api_offloaded"


class WholeOffload(ModelHook):  # type: ignore[misc]
    """Has ``module`` come to ``device`` when it is called, and ``others`` leave it.
    diffusers' own hooks copy weights back that have not changed, and into memory that
    no device reads directly."""

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        # By this name pipelines find out where to work.
        self.execution_device = device
        self.others: list[WholeOffload] = []
        self._copy = HostCopy(module, device)
        self._copy.leave()
        self._is_here = False
        # What a loader has left on it.
        remove_hook_from_module(module, recurse=True)
        add_hook_to_module(module, self)

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Come, before a call of ``module``; gives its arguments, on the device too."""
        if not self._is_here:
            for other in self.others:
                other.leave()
            # Already now: what comes in part has to leave, too.
            self._is_here = True
            self._copy.come()
        device = self.execution_device
        return send_to_device(args, device), send_to_device(kwargs, device)

    def leave(self) -> None:
        """Have it wait in the host's memory."""
        if self._is_here:
            self._copy.leave()
            self._is_here = False


def offload_of(part: Any) -> WholeOffload | None:
    """What makes ``part`` come and leave; None where nothing does."""
    found = getattr(part, "_hf_hook", None)
    return found if isinstance(found, WholeOffload) else None


def offload_whole(parts: Parts, device: torch.device) -> None:
    """Have one of ``parts`` on ``device`` at a time; other pipelines may have some of
    them."""
    hooks = [offload_of(part) or WholeOffload(part, device) for part in parts.values()]
    for hook in hooks:
        hook.others = [other for other in hooks if other is not hook]


def modules_of(pipeline: Any) -> dict[str, torch.nn.Module]:
    """The components of ``pipeline`` that have weights, by name."""
    return {n: part for n, part in pipeline.components.items() if is_module(part)}


def once(
    parts: Parts,
    device: torch.device,
    offload: Callable[[Parts, torch.device], None],
) -> None:
    """Run ``offload`` for those of ``parts`` that it has not been run for: its hooks
    are permanent, and other pipelines may have some of them."""
    fresh = {name: part for name, part in parts.items() if not hasattr(part, _MARK)}
    if fresh:
        offload(fresh, device)
    for part in fresh.values():
        setattr(part, _MARK, True)


def offload_sequentially(parts: Parts, device: torch.device) -> None:
    """Weight by weight."""
    for part in parts.values():
        # Freshly loaded, the VAE is on the device.
        pin(part.to("cpu"))
        cpu_offload(part, device, offload_buffers=bool(part._parameters))


def offload_groups(parts: Parts, device: torch.device) -> None:
    """Layer by layer; the VAE stays. A prompt upsampler, which reaches for weights of
    layers that it does not call, comes whole."""
    for name, part in parts.items():
        if name == "vae":
            part.to(device)
        elif name == "prompt_upsampler":
            offload_whole({name: part}, device)
        else:
            _stream(part, device)


def offload_texts(parts: Parts, device: torch.device) -> None:
    """Text encoders come for a prompt that was not read before. They come layer by
    layer, so that the card needs no room for them; a prompt upsampler, which goes
    through all of its layers for each word, whole, and so do those beside it."""
    texts = {name: parts[name] for name in TEXT_PARTS if name in parts}
    if "prompt_upsampler" in texts:
        offload_whole(texts, device)
        return
    for part in texts.values():
        _stream(part, device)


def _stream(part: torch.nn.Module, device: torch.device) -> None:
    """Have each layer come when it is needed, the next one on its way meanwhile."""
    # From memory that is not pinned nothing is on its way meanwhile.
    streams = device.type == "cuda" and pin(part)
    apply_group_offloading(
        part,
        onload_device=device,
        offload_type="leaf_level",
        use_stream=streams,
        record_stream=streams,
    )


def is_module(part: Any) -> TypeGuard[torch.nn.Module]:
    """Whether ``part`` has weights."""
    return isinstance(part, torch.nn.Module)
