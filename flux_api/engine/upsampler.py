"""A prompt upsampler at work: up to thousands of tokens before the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

from flux_api.loading.offloading import offload_of


class Upsampler:
    """``module`` as a pipeline calls it, on ``device``. ``check`` is called for each
    token that it writes, to show life; when it raises, the writing ends."""

    def __init__(
        self, module: Any, device: torch.device, check: Callable[[], None]
    ) -> None:
        self._module, self._check = module, check
        # Where inputs go: what is moved for each forward lies elsewhere by itself.
        self.device = device

    def generate(self, **inputs: Any) -> Any:
        """Write tokens as the module itself does."""
        life = _Life(self._check)
        hook = offload_of(self._module)
        if hook is None:
            return self._module.generate(**inputs, streamer=life)
        # Pictures are encoded outside of ``forward``, before which the hook has the
        # module come. It is not needed again for this picture.
        hook.pre_forward(self._module)
        try:
            return self._module.generate(**inputs, streamer=life)
        finally:
            hook.leave()


def upsampler_of(
    pipeline: Any, device: torch.device, check: Callable[[], None]
) -> Upsampler | None:
    """The one of ``pipeline``, where it has one."""
    if not hasattr(pipeline, "prompt_upsampler"):
        return None
    return Upsampler(pipeline.prompt_upsampler, device, check)


class _Life(BaseStreamer):  # type: ignore[misc]
    """What transformers tells of each token."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def put(self, value: Any) -> None:
        """A token was written."""
        self._check()

    def end(self) -> None:
        """It was the last one."""
