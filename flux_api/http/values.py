"""How values are read out of JSON or form text, and what is said of wrong ones."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

# The largest seed, 2^64 - 1, has 20 digits; longer ones cost time to read.
_INTEGER = re.compile(r"([+-]?[0-9]{1,20})(?:\.0{1,20})?")
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")
_LONGEST_WORD = 64
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def refuse(code: str, why: str, **limits: object) -> PydanticCustomError:
    """The error for a value, which becomes ``Invalid '<parameter>': <why>.``, with the
    numbers in it as ``limits``."""
    # Braces in a message would be taken for places to fill in.
    return PydanticCustomError(code, "{why}", {"why": why, "limits": limits})


def refuse_value(sentence: str) -> PydanticCustomError:
    """The error for a value that is told by a sentence of its own."""
    return PydanticCustomError("invalid_value", "{sentence}", {"sentence": sentence})


def too_long(most: int, text: str) -> PydanticCustomError:
    """The error for a ``text`` of more than ``most`` characters."""
    why = f"string too long. Expected at most {most} characters, but got {len(text)}"
    code = "string_above_max_length"
    return refuse(code, f"{why} instead", maximum=most, given=len(text))


def read_integer(value: object) -> int:
    """An int out of JSON or form text. Pydantic's own takes True and "1_0"."""
    if isinstance(value, str) and (match := _INTEGER.fullmatch(value.strip())):
        return int(match[1])
    if isinstance(value, int) and type(value) is not bool and abs(value) < 10**20:
        return value
    # JSON writes 1e3 and 2.0 for integers too; above 2^53 a float is no exact one.
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    raise refuse("invalid_type", "expected an integer")


def read_number(value: object) -> float:
    """A float out of JSON or form text; NaN, which no bound allows, for anything
    else."""
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    return math.nan


def _read_text(value: object) -> str | None:
    """A string; None when it is blank."""
    if not isinstance(value, str):
        raise refuse("invalid_type", "expected a string")
    if _NO_TEXT.search(value):
        raise refuse("invalid_value", "contains NUL or half a surrogate pair")
    return value if value.strip() else None


def read_word(value: object) -> str | None:
    """A string of at most 64 characters; None when it is blank."""
    text = _read_text(value)
    if text is not None and len(text) > _LONGEST_WORD:
        raise too_long(_LONGEST_WORD, text)
    return text


def _read_boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise refuse("invalid_type", "expected a boolean")
    return text in _TRUE


def _read_object(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise refuse("invalid_type", "expected an object")


Object = Annotated[
    dict[str, Any], PlainValidator(_read_object), WithJsonSchema({"type": "object"})
]
Integer = BeforeValidator(read_integer)
Number = BeforeValidator(read_number)
Text = BeforeValidator(_read_text)
Word = BeforeValidator(read_word)
Boolean = BeforeValidator(_read_boolean)
