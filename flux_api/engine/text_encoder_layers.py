"""FLUX.2's text encoders: language models of which the middle is read."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def reading_no_further(pipeline: Any) -> Iterator[Any]:
    """``pipeline`` with a text encoder that runs no layer behind the last one that is
    read, and its head, which makes words, for one token; the embeddings are the same,
    bit for bit. Other pipelines as they are."""
    parameters = inspect.signature(pipeline.encode_prompt).parameters
    if "text_encoder_out_layers" not in parameters:
        yield pipeline
        return
    read = max(parameters["text_encoder_out_layers"].default)
    view = copy.copy(pipeline)
    # Past torch's and diffusers' own __setattr__, which take modules only.
    object.__setattr__(view, "text_encoder", _Headless(pipeline.text_encoder))
    config = pipeline.text_encoder.config.get_text_config()
    whole = config.num_hidden_layers
    # What comes out behind the last of all is normalised: one more has to run.
    config.num_hidden_layers = min(whole, read + 1)
    try:
        yield view
    finally:
        config.num_hidden_layers = whole


class _Headless:
    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._encoder(*args, **kwargs, logits_to_keep=1)
