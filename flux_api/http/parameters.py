"""The parameters of a generating request: each described once, as a Pydantic field.

From the fields come parsing, errors that name the parameter, and JSON Schema. Each API
adds its own to :class:`Parameters`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from flux_api.core import MAX_SEED, Lora
from flux_api.errors import InvalidRequest
from flux_api.http.body_text import PICTURE_FIELD

MAX_PROMPT_CHARACTERS = 32_000
MAX_STEPS = 200
MAX_LORAS = 8
MAX_WEIGHT = 10.0
MAX_PARTIAL_IMAGES = 3
FORMATS = ("png", "jpeg", "webp")

JOB_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
# Behind one address an id of this kind leads to the instance that made it.
CHOSEN_JOB_ID = re.compile(rf"(?!g[0-9]+-){JOB_ID.pattern}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_LONGEST_LORA_NAME = 1024
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")
_QUOTED = re.compile(r"'([^']*)'")
_SIZE = re.compile(r"([0-9]{1,5})[xX]([0-9]{1,5})")
_ANY_SIDE = 10**9
_LONGEST_WORD = 64
_TRUE, _FALSE = ("true", "1"), ("false", "0")
_LISTS = frozenset({"loras"})


def refuse(code: str, why: str, **limits: object) -> PydanticCustomError:
    """The error for a value, which becomes ``Invalid '<parameter>': <why>.``, with the
    numbers in it as ``limits``."""
    # Braces in a message would be taken for places to fill in.
    return PydanticCustomError(code, "{why}", {"why": why, "limits": limits})


def refuse_value(sentence: str) -> PydanticCustomError:
    """The error for a value that is told by a sentence of its own."""
    return PydanticCustomError("invalid_value", "{sentence}", {"sentence": sentence})


def read_integer(value: object) -> int:
    """An int out of JSON or form text. Pydantic's own takes True and "1_0"."""
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value.strip())
    if isinstance(value, int) and type(value) is not bool and abs(value) < 10**20:
        return value
    # JSON writes 1e3 and 2.0 for integers too; above 2^53 a float is no exact one.
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    raise refuse("invalid_type", "expected an integer")


def _read_seed(value: object) -> int | None:
    """An int; None for a negative one, which every tool of this field takes as
    random."""
    seed = read_integer(value)
    return seed if seed >= 0 else None


def _read_number(value: object) -> float:
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
        raise _too_long(_LONGEST_WORD, text)
    return text


def _check_chosen(value: str | None) -> str | None:
    """``value``, unless it is of the kind that servers make."""
    if value is None or CHOSEN_JOB_ID.fullmatch(value):
        return value
    raise refuse(
        "invalid_value", "'g', a number and '-' begin only the ids that servers make"
    )


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int


def _read_size(value: object) -> Size | None:
    text = (read_word(value) or "auto").strip()
    if text.lower() == "auto":
        return None
    if match := _SIZE.fullmatch(text):
        return Size(int(match[1]), int(match[2]))
    raise refuse_value(f"Invalid size '{text}'. Expected WIDTHxHEIGHT or 'auto'.")


def _read_format(value: object) -> str | None:
    """The name of a file format as it is known here: files end in .jpg too."""
    word = (read_word(value) or "").strip().lower()
    return "jpeg" if word == "jpg" else word or None


def _read_boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise refuse("invalid_type", "expected a boolean")
    return text in _TRUE


def _read_loras(value: object) -> tuple[Lora, ...]:
    if isinstance(value, str):
        value = _loras_of_text(value.strip())
    if not isinstance(value, list) or len(value) > MAX_LORAS:
        raise refuse("invalid_type", f"expected a list of at most {MAX_LORAS}")
    found: dict[str, Lora] = {}
    for item in value:
        item = {"name": item} if isinstance(item, str) else item
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_LORA_NAME:
            raise refuse("invalid_value", "expected registered names")
        if name in found or item.keys() - {"name", "adapter_weight"}:
            why = "expected each name once, with its adapter_weight"
            raise refuse("invalid_value", why)
        found[name] = Lora(name, _read_weight(item.get("adapter_weight")))
    return tuple(found.values())


def _read_weight(value: object) -> float:
    weight = 1.0 if value in (None, "") else _read_number(value)
    if not -MAX_WEIGHT <= weight <= MAX_WEIGHT:
        bounds = f"from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
        raise refuse("invalid_value", f"expected a number {bounds}")
    return weight


def _loras_of_text(text: str) -> object:
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise refuse("invalid_value", "the JSON is malformed") from None
    if not text:
        return []
    return [_lora_of_text(part.strip()) for part in text.split(",")]


def _lora_of_text(text: str) -> object:
    """``name`` or ``name:weight``; what has other colons goes by JSON."""
    name, colon, weight = text.rpartition(":")
    if not colon:
        return {"name": text}
    return {"name": name.strip(), "adapter_weight": weight.strip()}


Integer = BeforeValidator(read_integer)
Number = BeforeValidator(_read_number)
Text = BeforeValidator(_read_text)
Word = BeforeValidator(read_word)
Boolean = BeforeValidator(_read_boolean)
Loras = PlainValidator(_read_loras)
_LORAS_SCHEMA = {
    "type": "array",
    "maxItems": MAX_LORAS,
    "items": {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": {
                "type": "string",
                "minLength": 1,
                "maxLength": _LONGEST_LORA_NAME,
            },
            "adapter_weight": {
                "type": "number",
                "minimum": -MAX_WEIGHT,
                "maximum": MAX_WEIGHT,
                "default": 1.0,
            },
        },
    },
}


class Fields(BaseModel):
    """Described parameters, read from what a caller sends."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", use_attribute_docstrings=True
    )
    _notes: tuple[str, ...] = PrivateAttr(())

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """The parameters among ``values``, a form's texts or JSON; absent, null and
        empty are the same. InvalidRequest names the first parameter that is wrong."""
        given = {n: v for n, v in values.items() if v is not None and v != ""}
        try:
            found = cls.model_validate(given)
        except ValidationError as error:
            raise _refusal(cls, error.errors(include_url=False)[0]) from None
        found._notes = tuple(cls._near_misses(given))
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on names that came and were passed over, and what they may mean."""
        return self._notes

    @classmethod
    def _near_misses(cls, names: Iterable[str]) -> Iterator[str]:
        known = [name for n, f in cls.model_fields.items() for name in _names(n, f)]
        for name in names:
            near = difflib.get_close_matches(name[:64], known, n=1, cutoff=0.8)
            if name not in known and near and not PICTURE_FIELD.fullmatch(name[:80]):
                # It goes into a header, too.
                yield f"{name[:64]!a} was passed over; did you mean {near[0]!r}?"


class Parameters(Fields):
    """What every API takes. None means that the caller left it to the model."""

    prompt: Annotated[str | None, Field(max_length=MAX_PROMPT_CHARACTERS), Text] = None
    """What to draw."""
    negative_prompt: Annotated[
        str | None, Field(max_length=MAX_PROMPT_CHARACTERS), Text
    ] = None
    """What to avoid; only where the model takes one."""
    seed: Annotated[
        int | None, Field(ge=0, le=MAX_SEED), BeforeValidator(_read_seed)
    ] = None
    """Random when left out or negative; picture i of a request uses seed + i."""
    # Whatever is an integer: the model's own grid says what is legal.
    width: Annotated[int | None, Field(ge=-_ANY_SIDE, le=_ANY_SIDE), Integer] = None
    """Pixels."""
    height: Annotated[int | None, Field(ge=-_ANY_SIDE, le=_ANY_SIDE), Integer] = None
    """Pixels."""
    wanted_size: Annotated[
        Size | None,
        Field(validation_alias="size"),
        BeforeValidator(_read_size),
        WithJsonSchema({"type": "string", "pattern": f"^(auto|{_SIZE.pattern})$"}),
    ] = None
    """WIDTHxHEIGHT in pixels, or auto."""
    num_inference_steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_STEPS,
            validation_alias=AliasChoices("num_inference_steps", "steps"),
        ),
        Integer,
    ] = None
    """Denoising steps."""
    guidance_scale: Annotated[float | None, Field(ge=0.0, le=100.0), Number] = None
    """How closely to follow the prompt, where it plays a part."""
    model: Annotated[str | None, Field(max_length=256), Text] = None
    """A model that is offered."""
    loras: Annotated[tuple[Lora, ...], Loras, WithJsonSchema(_LORAS_SCHEMA)] = ()
    """Registered LoRAs by name, each with its weight."""
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES), Integer] = 0
    """How many previews to make on the way."""
    output_format: Annotated[
        Literal["png", "jpeg", "webp"] | None, BeforeValidator(_read_format)
    ] = None
    """The pictures' file format, png by default; jpg is jpeg."""
    output_compression: Annotated[int, Field(ge=0, le=100), Integer] = 100
    """The quality of jpeg and webp."""
    job_id: Annotated[
        str | None,
        Field(pattern=f"^{JOB_ID.pattern}$"),
        AfterValidator(_check_chosen),
        WithJsonSchema({"type": "string", "pattern": f"^{CHOSEN_JOB_ID.pattern}$"}),
    ] = None
    """The job's id, chosen by the caller."""
    dry_run: Annotated[bool, Boolean] = False
    """Tell what would be made, and when; nothing runs."""

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        for side, own in zip(self.wanted_size or (), ("width", "height"), strict=False):
            if getattr(self, own) not in (None, side):
                message = f"'size' and '{own}' say different things: send one of them."
                raise InvalidRequest(message, param=own)
        return self

    @model_validator(mode="after")
    def _check_compression(self) -> Self:
        if self.output_compression < 100 and self.file_format == "png":
            raise InvalidRequest(
                "Invalid 'output_compression': below 100 it needs the output_format "
                "jpeg or webp; PNG is lossless.",
                param="output_compression",
            )
        return self

    @property
    def file_format(self) -> Literal["png", "jpeg", "webp"]:
        """The pictures' file format."""
        return self.output_format or "png"

    @property
    def size(self) -> tuple[int | None, int | None]:
        """(width, height) in pixels, None where the caller left them open."""
        return self.wanted_size or (self.width, self.height)

    @property
    def size_param(self) -> str | None:
        """What the caller calls a size, None for ``width`` and ``height``."""
        return "size" if self.wanted_size else None

    @property
    def num_images(self) -> int:
        """How many pictures to make."""
        return 1

    @property
    def steps_share(self) -> float:
        """What to multiply the model's default number of steps by."""
        return 1.0


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
        sentence = f"'{param}' was given more than once."
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
            return _too_long(limits["max_length"], value)
        case "literal_error":
            return _unsupported_value(value, _QUOTED.findall(limits["expected"]))
        case "string_pattern_mismatch" | "string_type" if param == "job_id":
            why = "expected 8 to 64 of A-Z, a-z, 0-9, '_' and '-'"
            return refuse("invalid_value", why)
    if "sentence" in limits:
        return refuse_value(limits["sentence"])
    return refuse(error["type"], limits.get("why", "expected another value"))


def _bounds(kind: type[Fields], param: str) -> tuple[float, float]:
    schema = kind.model_json_schema()["properties"][param]["anyOf"][0]
    return schema["minimum"], schema["maximum"]


def _too_long(most: int, text: str) -> PydanticCustomError:
    why = f"string too long. Expected at most {most} characters, but got {len(text)}"
    code = "string_above_max_length"
    return refuse(code, f"{why} instead", maximum=most, given=len(text))


def _unsupported_value(value: object, known: list[str]) -> PydanticCustomError:
    comma = "," if len(known) > 2 else ""
    listed = ", ".join(f"'{word}'" for word in known[:-1])
    sentence = f"Invalid value: '{value}'. Supported values are: {listed}{comma} and "
    return refuse_value(f"{sentence}'{known[-1]}'.")
