"""What a small model knows: ``known_words.json`` beside its weights.

For each language: ``things`` that it draws, single ``words`` of their names, words of
``changes`` and styles, and ``examples``. Written by ``training.known_words``.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from flux_api.models.sources import Folder, Source

FILE = "known_words.json"
# Characters; far more than a small model's text encoders read.
_LOOKED_AT = 2000
_WORD = re.compile(r"[a-z0-9]+")
# No language that is cut at spaces: words are looked for anywhere.
_UNSPACED = re.compile(r"[^\x00-\u2e7f]")
# What stands between two things that are wanted at once, and not in one thing's name.
_BETWEEN = re.compile(
    r"\b(?:and|with|plus|on|in|at|under|over|near|beside|behind|beneath|above|"
    r"next|front|riding|holding|wearing|eating|chasing|versus|vs)\b|[,&+;]"
)
_BETWEEN_UNSPACED = re.compile(
    r"\s*(?:と|や|・|＆|&|\+|＋|および|及び|に乗|を持|をかぶ|を着|を食べ|の上|の下|の隣|"
    r"の横|の前|の後ろ|のそば)"
)
# Words of orders that say how, and only together with others what.
_VAGUE_WORDS = """
    add apply around away become behind bit change changed convert delete direction
    drawn drop exchange face fill front half head lay leave left lie look lose old
    place redo redraw remove render replace reverse rid right same seen set sides
    space stand strip switch take tip transform turned を入れ 感じ 左 向き 後ろ 消し
    なくし 削除 直し 置き換え 変身 描き直し 同じ
"""
_VAGUE = frozenset(_VAGUE_WORDS.split())
# What orders are about without a word that is theirs alone.
_ABOUT = re.compile(
    r"\b(?:backgrounds?|colou?rs?|white|keep|copy|nothing|same|left|(?:90|180) degrees|"
    r"(?:half|quarter) (?:a )?turn|(?:on|to) its \w+|the other \w+|leave \w+ as|"
    r"lie down)\b|背景|バック|色|彩度|そのまま|このまま|何も|変えず|同じ|左|横|倒|寝か|"
    r"傾け|90度|頭|ピント|フォーカス|もや|ぼや"
)
# Orders that bring something to the picture; a thing in them is not what it becomes.
_BRINGS = re.compile(
    r"\b(?:add|put|give|wear|wearing|place|hold|holding)\b|足し|加え|追加|かぶ|被|"
    r"持たせ|着せ|乗せ|のせ|付け|つけ|かけ|を入れ|添え"
)


# Read once: the file belongs to the weights, which do not change while they are loaded.
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
    if known_words(source) is None or not prompt.strip():
        return True
    return _finds(source, prompt, ("things", "words", "changes"))


def knows_order(source: Source, order: str) -> bool:
    """Whether ``order``, said to a picture, is of a kind that the model in ``source``
    follows: a change that it knows, or a thing to become."""
    if known_words(source) is None or not order.strip():
        return True
    order = _as_read(order)
    if _ABOUT.search(order) or _finds(source, order, ("changes",), without=_VAGUE):
        return True
    return not _BRINGS.search(order) and any(True for _ in _things(source, order))


def two_things(source: Source, prompt: str) -> bool:
    """Whether ``prompt`` wants two things at once, of those that the model in
    ``source`` knows: it draws one."""
    if known_words(source) is None:
        return False
    prompt, last = _as_read(prompt), None
    for found in _things(source, prompt):
        if last is not None and last.group() != found.group():
            between = prompt[last.end() : found.start()]
            unspaced = _UNSPACED.search(last.group()) is not None
            if (unspaced and _BETWEEN_UNSPACED.match(between)) or (
                not unspaced and _BETWEEN.search(between)
            ):
                return True
        last = found
    return False


def _as_read(prompt: str) -> str:
    """``prompt`` as tokenizers read it. In NFC as theirs: what was typed or pasted on a
    Mac may be decomposed; half-width letters are other ones to them, and are here."""
    return unicodedata.normalize("NFC", prompt).lower()


def _things(source: Source, prompt: str) -> Iterator[re.Match[str]]:
    """Where ``prompt``, in lower case, names things, the longest names first."""
    return _pattern(source).finditer(prompt[:_LOOKED_AT])


@lru_cache(maxsize=16)
def _pattern(source: Source) -> re.Pattern[str]:
    content = known_words(source) or {}
    names = {
        name.lower() for language in content.values() for name in language["things"]
    }
    listed = sorted(names, key=len, reverse=True)
    spaced = "|".join(re.escape(n) for n in listed if not _UNSPACED.search(n))
    unspaced = "|".join(re.escape(n) for n in listed if _UNSPACED.search(n))
    return re.compile(rf"\b(?:{spaced})(?=s?\b)|(?:{unspaced})")


def _finds(
    source: Source,
    prompt: str,
    kinds: tuple[str, ...],
    *,
    without: frozenset[str] = frozenset(),
) -> bool:
    """Whether a listed word of ``kinds`` stands in ``prompt``."""
    single, anywhere = _tables(source, kinds)
    # English is cut at spaces; Japanese is searched.
    prompt = _as_read(prompt)
    return not (single - without).isdisjoint(_WORD.findall(prompt)) or any(
        word in prompt for word in anywhere if word not in without
    )


@lru_cache(maxsize=16)
def _tables(
    source: Source, kinds: tuple[str, ...]
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Single words, and those that are found within unspaced text."""
    content = known_words(source) or {}
    listed = [
        word.lower()
        for language in content.values()
        for kind in kinds
        for word in language[kind]
    ]
    anywhere = tuple(word for word in listed if _UNSPACED.search(word))
    return frozenset(word for word in listed if word not in anywhere), anywhere
