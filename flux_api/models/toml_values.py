"""Values of a TOML file, checked: each check gives the value or says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Check = Callable[[Any], Any]


class Wrong(Exception):
    """A value that cannot be used: why, and where (keys from the inside out)."""

    def __init__(self, why: str, *keys: str) -> None:
        super().__init__(why)
        self.keys = list(keys)


def check_table(table: Mapping[str, Any], keys: Mapping[str, Check]) -> dict[str, Any]:
    """``table`` with each value checked by its key; Wrong names the first bad."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in keys:
            raise Wrong(f"unknown; expected one of {', '.join(sorted(keys))}", key)
        try:
            found[key] = keys[key](value)
        except Wrong as wrong:
            wrong.keys.append(key)
            raise
    return found


def as_table(value: Any) -> Mapping[str, Any]:
    """A table."""
    if not isinstance(value, dict):
        raise Wrong(f"expected a table, got {value!r}")
    return value


def as_text(value: Any) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise Wrong(f"expected a text, got {value!r}")
    return value


def as_texts(value: Any) -> tuple[str, ...]:
    """A list of texts, as a tuple."""
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise Wrong(f"expected a list of texts, got {value!r}")
    return tuple(value)


def whole(low: int, high: int) -> Check:
    """Checks for an int in ``low..high``."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Wrong(f"expected a whole number from {low} to {high}, got {value!r}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """Checks for a number in ``low..high``; gives a float."""

    def check(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise Wrong(f"expected a number from {low:g} to {high:g}, got {value!r}")
        return float(value)

    return check


def one_of(known: tuple[str, ...]) -> Check:
    """Checks for one of the texts ``known``."""

    def check(value: Any) -> str:
        if value not in known:
            raise Wrong(f"expected one of {', '.join(known)}, got {value!r}")
        return str(value)

    return check


def as_switch(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise Wrong(f"expected true or false, got {value!r}")
    return value


def by_name(check: Check, names: tuple[str, ...] = ()) -> Check:
    """Checks a table of values of one kind, each under a name (one of ``names``)."""

    def checked(value: Any) -> dict[str, Any]:
        allowed = dict.fromkeys(names or as_table(value), check)
        for key in allowed:
            if not NAME.fullmatch(key):
                raise Wrong("expected A-Z, a-z, 0-9, '.', '_' and '-'", key)
        return check_table(as_table(value), allowed)

    return checked


def as_scalar(value: Any) -> str | int | float | bool:
    """A text, a number, true or false."""
    if not isinstance(value, str | int | float | bool):
        raise Wrong(f"expected a text, a number, true or false, got {value!r}")
    return value


def as_size(value: Any) -> tuple[int, int]:
    """[width, height] in pixels, as a tuple."""
    side = whole(16, 8192)
    if not isinstance(value, list) or len(value) != 2:
        raise Wrong(f"expected [width, height], got {value!r}")
    return side(value[0]), side(value[1])
