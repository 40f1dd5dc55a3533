"""Prompts to tokens before their turn: tokenizers that remember what they answered, and
a pipeline without weights that asks them what the real one will ask."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from transformers import BatchEncoding

MOST_BYTES = 16 << 20
"""What the tokenizers of a set remember at most: about 500 prompts."""

_TOKENIZERS = ("tokenizer", "tokenizer_2")
_KEPT = (*_TOKENIZERS, "_internal_dict")  # diffusers' ``config``
_ENCODERS = ("text_encoder", "text_encoder_2")


class PromptReader:
    """Reads prompts as ``pipeline``, a classic one, will: over its tokenizers, which
    remember from now on, and nothing that has weights. Thread-safe."""

    def __init__(self, pipeline: Any) -> None:
        for name in _TOKENIZERS:
            if (tokenizer := getattr(pipeline, name, None)) is not None:
                # FLUX.2's processor has it inside.
                inner = getattr(tokenizer, "tokenizer", tokenizer)
                _remember(inner, MOST_BYTES // len(_TOKENIZERS))
        self.pipeline = _without_weights(pipeline)

    def read(self, prompt: str, length: int) -> None:
        """Have ``prompt`` tokenized as ``encode_prompt`` will want it, up to ``length``
        tokens."""
        # What fails here fails again in its turn, where it is answered for.
        with contextlib.suppress(Exception):
            self.pipeline.encode_prompt(
                prompt, device=torch.device("cpu"), max_sequence_length=length
            )


def _without_weights(pipeline: Any) -> Any:
    view = copy.copy(pipeline)
    # What it is told by numbers and texts, no part and no hook that holds one.
    view.__dict__ = {
        name: value
        for name, value in vars(pipeline).items()
        if value is None or isinstance(value, (int, str)) or name in _KEPT
    }
    encoders = [name for name in _ENCODERS if name in pipeline.components]
    for name in encoders:
        view.__dict__[name] = _Absent(is_last=name == encoders[-1])
    return view


class _Asked(Exception):
    """All tokenizers have been asked."""


class _Absent(torch.nn.Module):
    """Stands where a text encoder would; what it gives is looked at by nobody."""

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, *, is_last: bool) -> None:
        super().__init__()
        self._is_last = is_last

    def forward(self, *_: Any, **__: Any) -> Any:
        if self._is_last:
            raise _Asked
        return SimpleNamespace(pooler_output=torch.zeros(1, 1))


def _remember(tokenizer: Any, most_bytes: int) -> None:
    """Have ``tokenizer``, which threads may share from now on, remember its answers,
    ``most_bytes`` of them. It stays of its class, as pipelines look at that."""
    kind = type(tokenizer)
    if not issubclass(kind, _Remembering):
        names = {"__module__": kind.__module__}
        tokenizer.__class__ = type(kind.__name__, (_Remembering, kind), names)
        tokenizer._answers = _Answers(most_bytes)


class _Remembering:
    """Comes before a tokenizer's own class."""

    _answers: _Answers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own: Any = super()
        return self._answers.get("call", own.__call__, args, kwargs)

    @functools.cached_property
    def added_tokens_encoder(self) -> Any:
        """Made once: pipelines ask for it with each token of a prompt, and nobody adds
        any more."""
        own: Any = super()
        return own.added_tokens_encoder

    def tokenize(self, *args: Any, **kwargs: Any) -> Any:
        own: Any = super()
        return self._answers.get("tokenize", own.tokenize, args, kwargs)

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        own: Any = super()
        return self._answers.get("chat", own.apply_chat_template, args, kwargs)


class _Answers:
    """The newest answers, ``most_bytes`` of them. A tokenizer is asked by one thread at
    a time: its padding and truncation are set anew before each text."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        # Reentrant: a chat template is tokenized within its own call.
        self._turn = threading.RLock()
        # Of its own: who only looks up does not wait for a long prompt.
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def get(
        self,
        name: str,
        ask: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """What ``ask`` answers to the arguments."""
        try:
            key = json.dumps([name, args, kwargs])
        except TypeError:
            # A chat with pictures, say.
            with self._turn:
                return ask(*args, **kwargs)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return copy.copy(self._kept[key][0])
        with self._turn:
            answer = ask(*args, **kwargs)
        if isinstance(answer, BatchEncoding):
            # Without what else is known of each token: ten times its size.
            answer = BatchEncoding(dict(answer))
        self._keep(key, answer)
        return copy.copy(answer)

    def _keep(self, key: str, answer: Any) -> None:
        # A text of it is no longer than the key.
        size = 2 * len(key) + _size_of(answer)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = answer, size
                self._bytes += size
            while self._bytes > self._most_bytes:
                _, (_, oldest) = self._kept.popitem(last=False)
                self._bytes -= oldest


def _size_of(answer: Any) -> int:
    """About how many bytes ``answer`` takes, where it is no text."""
    if isinstance(answer, BatchEncoding):
        return sum(getattr(tensor, "nbytes", 0) for tensor in answer.values())
    # Tokens are texts of a few letters, each an object of its own.
    return sum(map(sys.getsizeof, answer)) if isinstance(answer, list) else 0
