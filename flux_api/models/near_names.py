"""What was meant by a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Of what a caller sent; longer names cost time to compare.
_LONGEST = 64


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with the nearest of ``known`` to follow a sentence; empty
    where none is alike. A name without the folders in front of it is near, and so is
    the beginning of one."""
    # Several may differ in capitals alone; the first counts.
    by_key: dict[str, str] = {}
    for other in known:
        by_key.setdefault(other.lower(), other)
    # Capitals are what people miss most.
    key = name[:_LONGEST].lower()
    near = [other for other in by_key if other.rpartition("/")[2] == key]
    # Of what it begins: "klein" is klein-4b.
    near = near or [other for other in by_key if len(key) > 3 and other.startswith(key)]
    near = near or difflib.get_close_matches(key, by_key, n=1)
    return f" Did you mean {by_key[near[0]]!r}?" if near else ""
