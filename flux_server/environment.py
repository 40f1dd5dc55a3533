"""Settings out of environment variables: what the API and the file server share."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_PREFIXES = ("FLUX_", "FILES_")


class EnvironmentSettings(BaseModel):
    """Settings, each with its variable as the alias."""

    # Strict: by itself pydantic takes True for 1, and 1_0 for 10.
    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def variables(cls) -> list[str]:
        """The names of all variables."""
        return [str(field.alias) for field in cls.model_fields.values()]


def env(name: str, ge: float | None = None, le: float | None = None) -> Any:
    """The variable of a setting, and the bounds of a number."""
    return Field(alias=name, ge=ge, le=le, repr="TOKEN" not in name)


def parsed(parse: Callable[..., object]) -> BeforeValidator:
    """Texts go through ``parse``; what is no text any more stays as it is."""
    return BeforeValidator(lambda v: parse(v) if v and isinstance(v, str) else v)


def near_misses(
    environ: Mapping[str, str], known: Iterable[str], prefix: str
) -> Iterator[str]:
    """A sentence for each variable that begins with ``prefix``, or is nearly one of
    ``known``, and is none of them."""
    known = list(known)
    # What all of ours have in common makes none alike.
    endings = {other.removeprefix(prefix): other for other in known}
    for name in environ:
        ours = name.startswith(prefix)
        if not ours and name.startswith(_PREFIXES):
            # Of the other server, which 'serve' starts with the same environment: some
            # of both differ by that alone.
            continue
        if ours:
            found = difflib.get_close_matches(name.removeprefix(prefix), endings, n=1)
            near = [endings[ending] for ending in found]
        else:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name not in known and (ours or near):
            meant = f"; did you mean {near[0]}?" if near else ""
            yield f"{name} is set, but there is no such setting{meant}"
