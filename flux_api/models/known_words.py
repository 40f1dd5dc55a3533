"""What a small model knows: ``known_words.json`` beside its weights.

For each language: ``things`` that it draws, single ``words`` of their names, words of
``changes`` and styles, and ``examples``. Written by ``training.known_words``.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from flux_api.models.sources import Folder, Source

FILE = "known_words.json"
_WORD = re.compile(r"[a-z0-9]+")
# No language that is cut at spaces: words are looked for anywhere.
_UNSPACED = re.compile(r"[^\x00-\u2e7f]")


@lru_cache(maxsize=16)
def known_words(source: Source) -> dict[str, Any] | None:
    """The content of the file of ``source``; None where there is none, as for models
    that know most words."""
    if not isinstance(source, Folder):
        return None
    try:
        content: dict[str, Any] = json.loads((source.path / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content


def knows(source: Source, prompt: str) -> bool:
    """Whether a word of ``prompt`` means something to the model in ``source``."""
    content = known_words(source)
    if content is None or not prompt.strip():
        return True
    single, anywhere = _tables(source)
    # English is cut at spaces; Japanese is searched.
    prompt = prompt.lower()
    return not single.isdisjoint(_WORD.findall(prompt)) or any(
        word in prompt for word in anywhere
    )


@lru_cache(maxsize=16)
def _tables(source: Source) -> tuple[frozenset[str], tuple[str, ...]]:
    """Single words, and those that are found within unspaced text."""
    content = known_words(source) or {}
    listed = [
        word.lower()
        for language in content.values()
        for kind in ("things", "words", "changes")
        for word in language[kind]
    ]
    anywhere = tuple(word for word in listed if _UNSPACED.search(word))
    return frozenset(word for word in listed if word not in anywhere), anywhere
