"""Values of settings as operators write them; what is wrong is named, secrets never."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from flux_api.api_keys import ApiKey, parse_keys, parse_token
from flux_api.errors import BadSetting
from flux_server.environment import EnvironmentSettings, near_misses, parsed

Network = IPv4Network | IPv6Network
Model = TypeVar("Model", bound=EnvironmentSettings)

# Apps have schemes of their own: app://obsidian.md, tauri://localhost, file://.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._\[\]:-]+|file://")
_HOST = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9a-f]*:[0-9a-f:.]*")
_SPELLINGS: dict[Any, str] = {
    int: r"[0-9]{1,18}",
    float: r"[0-9]{1,18}(\.[0-9]{1,18})?",
    bool: r"[01]",
}
_PAIR = re.compile(r"(flux-[A-Za-z0-9._-]{1,59})=([^=,\s]+)")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([1-9][0-9]{0,4})")
_SECRET_PARTS = re.compile(r"(?<=//)[^/]*@|[?#].*", re.DOTALL)
_LONGEST_SHOWN = 200
# Whom the command line asks; no settings of a server.
_OF_CLIENTS = ("FLUX_SERVER", "FLUX_KEY")


@BeforeValidator
def token(value: Any, info: ValidationInfo) -> Any:
    try:
        return parse_token(value) if isinstance(value, str) and value else value
    except ValueError as error:
        name = str(info.field_name).upper()
        raise BadSetting(f"{name}=***: {error}") from None


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not (parts.query or parts.fragment or "@" in parts.netloc)
            and text.isascii()
            and text.isprintable()
            and not set(text) & set(" \\")
        )
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("a URL like http://127.0.0.1:8010")
    return text.rstrip("/")


url = parsed(_url)


@parsed
def review(text: str) -> str:
    if _FUNCTION.fullmatch(text):
        return text
    try:
        _url(text)
    except ValueError:
        message = "module:function, or a URL like http://127.0.0.1:9000/check"
        raise ValueError(message) from None
    # As it was given: many programs know no address without the slash at its end.
    return text


@BeforeValidator
def keys(value: Any, info: ValidationInfo) -> Any:
    """Keys in the variable itself and in the file that another one names."""
    path = info.data.get("api_keys_file")
    # Keys that are given as such, by tests and other code, need no file.
    if not isinstance(value, str) and (value or path is None):
        return value
    text, source = value or "", "FLUX_API_KEYS"
    try:
        found = parse_keys(text)
        if path is not None:
            source = f"FLUX_API_KEYS_FILE={path!r}"
            text += "\n" + Path(path).expanduser().read_text("utf-8")
            found = parse_keys(text)
        # Never open by mistake: what was set has to name somebody.
        if not found:
            raise ValueError("no key in it")
    except UnicodeDecodeError:
        raise BadSetting(f"{source}: no text in UTF-8") from None
    except (OSError, RuntimeError, ValueError) as error:
        # The message never holds a key: what can be read in a log is no secret.
        why = getattr(error, "strerror", None) or error
        raise BadSetting(f"{source}: {why}") from None
    return found


@parsed
def admin_keys(text: str) -> tuple[ApiKey, ...]:
    try:
        found = parse_keys(text)
    except ValueError as error:
        # The message never holds a key.
        raise BadSetting(f"FLUX_ADMIN_KEYS: {error}") from None
    if not found:
        raise BadSetting("FLUX_ADMIN_KEYS: no key in it")
    return found


@parsed
def origins(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if not all(part == "*" or _ORIGIN.fullmatch(part) for part in found):
        raise ValueError("* or origins like https://example.org")
    return found


@parsed
def hosts(text: str) -> tuple[str, ...]:
    found = tuple(part.strip().strip("[]") for part in text.split(","))
    if not all(part == "*" or _HOST.fullmatch(part) for part in found):
        raise ValueError("names like flux.example.org,.lan without a port, or *")
    return found


@parsed
def address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    try:
        if match is None or int(match[3]) > 65535:
            raise ValueError
        host = ip_address(match[1] or match[2])
    except ValueError:
        raise ValueError("an address like 127.0.0.1:9100") from None
    return f"[{host}]:{match[3]}" if host.version == 6 else f"{host}:{match[3]}"


@parsed
def networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part.strip()) for part in text.split(","))
    except ValueError:
        raise ValueError("networks like 192.168.1.0/24,fd00::/8") from None


@parsed
def pairs(text: str) -> tuple[tuple[str, str], ...]:
    found = tuple(
        (match[1], match[2])
        for part in text.split(",")
        if (match := _PAIR.fullmatch(part.strip()))
    )
    if len(found) < len(text.split(",")):
        raise ValueError("pairs like flux-dev=flux1,flux-2-pro=klein-4b")
    return found


@parsed
def names(text: str) -> tuple[str, ...]:
    parts = (part.strip() for part in text.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def _path(is_usable: Callable[[Path], bool], why: str) -> BeforeValidator:
    def read(text: str) -> Path:
        try:
            path = Path(text).expanduser()
            usable = is_usable(path)
        except (OSError, ValueError, RuntimeError):
            usable = False
        if not usable:
            raise ValueError(why)
        return path

    return parsed(read)


file = _path(Path.is_file, "no such file")
folder = _path(Path.is_dir, "no such folder")
new_folder = _path(lambda path: path.is_dir() or not path.exists(), "no folder")


def read(model: type[Model], environ: Mapping[str, str]) -> Model:
    """The ``model`` of what ``environ`` sets; BadSetting names the variable that is
    wrong. Unset, empty and blank are the same."""
    given = {}
    for field in model.model_fields.values():
        name = str(field.alias)
        if text := environ.get(name, "").strip():
            given[name] = _as_number(text, field.annotation)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        schema = model.model_json_schema()["properties"]
        raise _complaint(environ, error.errors()[0], schema) from None


def unknown(
    model: type[EnvironmentSettings], environ: Mapping[str, str]
) -> Iterator[str]:
    """A sentence for each variable that begins like one of ours, or is nearly one, and
    is none."""
    others = {n: text for n, text in environ.items() if n not in _OF_CLIENTS}
    return near_misses(others, model.variables(), "FLUX_")


def _as_number(text: str, annotation: Any) -> Any:
    """What a number or a switch says; the model refuses what stays a text. Not a
    validator: bounds behind one would not be ``minimum`` in the schema."""
    for kind in get_args(annotation) or (annotation,):
        if kind in _SPELLINGS and re.fullmatch(_SPELLINGS[kind], text):
            return kind(float(text))
    return text


def _complaint(
    environ: Mapping[str, str], error: ErrorDetails, schema: Mapping[str, Any]
) -> BadSetting:
    """Our own words: pydantic's would show secrets."""
    name, why = str(error["loc"][0]), error.get("ctx", {}).get("error")
    if isinstance(why, BadSetting):
        return why
    shown = environ[name].strip()
    if name.startswith(("FILE_SERVER", "FLUX_FILTER", "FLUX_C2PA")):
        shown = _SECRET_PARTS.sub("***", shown)
    why = why or _expected(schema[name])
    return BadSetting(f"{name}={shown[:_LONGEST_SHOWN]!r}: {why}")


def _expected(schema: dict[str, Any]) -> str:
    schema = schema.get("anyOf", [schema])[0]
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if schema["type"] == "boolean":
        return "0 or 1"
    low, high = schema["minimum"], schema["maximum"]
    if schema["type"] == "integer":
        return f"a whole number from {low} to {high}"
    return f"a number from {low:g} to {high:g}"
