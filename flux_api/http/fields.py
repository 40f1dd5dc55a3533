"""Described parameters: read from what a caller sends, errors in OpenAI's words."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    PrivateAttr,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from flux_api.errors import InvalidRequest
from flux_api.http.body_text import PICTURE_FIELD
from flux_api.http.values import read_number, refuse, refuse_value, too_long

_QUOTED = re.compile(r"'([^']*)'")
_LISTS = frozenset({"loras"})
# Comparing names takes time, and what is said of them goes into a header, too.
_MOST_STRANGE = 20


class Fields(BaseModel):
    """Described parameters, read from what a caller sends."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", use_attribute_docstrings=True
    )
    _notes: tuple[str, ...] = PrivateAttr(())

    @classmethod
    def read(cls, values: Mapping[str, Any], address: Iterable[str] = ()) -> Self:
        """The parameters among ``values``, a form's texts or JSON; absent, null and
        empty are the same. InvalidRequest names the first parameter that is wrong.
        ``address`` is the names in the query, where no parameter is read."""
        # Forms send every field, filled in or not.
        given = {n: v for n, v in values.items() if v is not None and v != ""}
        given = cls._without_brackets(given)
        cls._check_other_names(given)
        try:
            found = cls.model_validate(given)
        except ValidationError as error:
            raise _refusal(cls, error.errors(include_url=False)[0]) from None
        found._notes = (*cls._near_misses(given), *cls._misplaced(address))
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on names that came and were ignored, and what they may mean."""
        return self._notes

    @classmethod
    def _without_brackets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """``given`` with a list's ``name[]``, as clients send it in forms, under its
        name. InvalidRequest for ``name[key]`` and the like: of several objects in a
        list a form does not tell which value is whose."""
        found, known = dict(given), cls._known()
        for name in given:
            stem, bracket, _ = name.partition("[")
            if not bracket or stem not in known:
                continue
            if name != f"{stem}[]" or stem not in _LISTS or stem in given:
                how = " as JSON, or as name:weight,..." if stem in _LISTS else ""
                raise InvalidRequest(
                    f"'{name[:64]}' is not read: send '{stem}' as one value{how}.",
                    param=stem,
                )
            value = found.pop(name)
            found[stem] = value if isinstance(value, list) else [value]
        return found

    @classmethod
    def _check_other_names(cls, given: Mapping[str, Any]) -> None:
        """InvalidRequest where one parameter came by two of its names, with two
        values: one of them would be dropped."""
        for name, field in cls.model_fields.items():
            first, *others = [n for n in _names(name, field) if n in given] or [name]
            for other in others:
                if not _are_same(given[other], given[first]):
                    raise InvalidRequest(
                        f"'{first}' and '{other}' say different things: send one of "
                        "them.",
                        param=other,
                    )

    @classmethod
    def _known(cls) -> list[str]:
        return [name for n, f in cls.model_fields.items() for name in _names(n, f)]

    @classmethod
    def _misplaced(cls, names: Iterable[str]) -> Iterator[str]:
        for name in sorted({*cls._known()}.intersection(names)):
            yield f"'{name}' in the address was ignored: send it in the body."

    @classmethod
    def _near_misses(cls, names: Iterable[str]) -> Iterator[str]:
        known = cls._known()
        strange = (
            name
            for name in names
            if name not in known and not PICTURE_FIELD.fullmatch(name[:80])
        )
        for name in islice(strange, _MOST_STRANGE):
            if note := cls._note_on(name[:64], known):
                yield note

    @classmethod
    def _note_on(cls, name: str, known: list[str]) -> str | None:
        """What is said of a ``name`` that is none of those ``known``; None where nobody
        can have meant anything here by it."""
        # Of four letters one may be wrong.
        cutoff = 0.75 if len(name) < 5 else 0.8
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=cutoff)
        return f"{name!a} was ignored; did you mean {near[0]!r}?" if near else None


def _are_same(one: object, other: object) -> bool:
    # A form's "4" is what JSON's 4 and 4.0 are.
    return str(one) == str(other) or read_number(one) == read_number(other)


def _names(name: str, field: FieldInfo) -> list[str]:
    """Under which names ``field`` may come."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [str(alias or name)]


def _refusal(kind: type[Fields], error: ErrorDetails) -> InvalidRequest:
    """OpenAI's sentence and code for Pydantic's ``error``."""
    param, value = str(error["loc"][0]), error["input"]
    refusal = _describe(kind, param, error)
    sentence = (refusal.context or {}).get("sentence")
    if isinstance(value, list) and len(value) > 1 and param not in _LISTS:
        sentence = f"'{param}' was given more than once: send one value, not a list."
    message = sentence or f"Invalid '{param}': {refusal.message()}."
    limits = (refusal.context or {}).get("limits")
    return InvalidRequest(message, param=param, code=str(refusal.type), limits=limits)


def _describe(
    kind: type[Fields], param: str, error: ErrorDetails
) -> PydanticCustomError:
    value, limits = error["input"], error.get("ctx", {})
    match error["type"]:
        case "greater_than_equal" | "less_than_equal" if isinstance(value, float):
            low, high = _bounds(kind, param)
            why = f"expected a number from {low:g} to {high:g}"
            given = value if math.isfinite(value) else None
            numbers = {"minimum": low, "maximum": high, "given": given}
            return refuse("invalid_value", why, **numbers)
        case "less_than_equal":
            why = "integer above maximum value. Expected a value <= {}, but got {}"
            code, limit = "integer_above_max_value", limits["le"]
            why = why.format(limit, value) + " instead"
            return refuse(code, why, maximum=limit, given=value)
        case "greater_than_equal":
            why = "integer below minimum value. Expected a value >= {}, but got {}"
            code, limit = "integer_below_min_value", limits["ge"]
            why = why.format(limit, value) + " instead"
            return refuse(code, why, minimum=limit, given=value)
        case "string_too_long":
            return too_long(limits["max_length"], value)
        case "literal_error":
            return _unsupported_value(value, _QUOTED.findall(limits["expected"]))
        case "string_pattern_mismatch" | "string_type" if param == "job_id":
            why = "expected 8 to 64 of A-Z, a-z, 0-9, '_' and '-'"
            return refuse("invalid_value", why)
    if "sentence" in limits:
        return refuse_value(limits["sentence"])
    return refuse(error["type"], limits.get("why", "expected another value"))


def _bounds(kind: type[Fields], param: str) -> tuple[float, float]:
    # A parameter may have come by another of its names.
    name = next(n for n, f in kind.model_fields.items() if param in _names(n, f))
    schema = kind.model_json_schema(by_alias=False)["properties"][name]["anyOf"][0]
    return schema["minimum"], schema["maximum"]


def _unsupported_value(value: object, known: list[str]) -> PydanticCustomError:
    comma = "," if len(known) > 2 else ""
    listed = ", ".join(f"'{word}'" for word in known[:-1])
    sentence = f"Invalid value: '{value}'. Supported values are: {listed}{comma} and "
    return refuse_value(f"{sentence}'{known[-1]}'.")
