"""The file server's settings: the one reader of its environment."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from .errors import SettingsError

DEFAULT_TOKEN = "changeme-token"
DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "var" / "images"
MB = 1024 * 1024


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    path: Path


@dataclass(frozen=True)
class Bucket:
    """A bucket of an S3-compatible service and a prefix in it ('' or 'a/b/')."""

    name: str
    prefix: str


@dataclass(frozen=True)
class Settings:
    """Everything that can be set; sizes are in bytes, the age in seconds, 0 is off."""

    bearer_token: str = field(default=DEFAULT_TOKEN, repr=False)
    upload_token: str = field(default="", repr=False)
    storage: Folder | Bucket = Folder(DEFAULT_FOLDER)
    public_url: str = ""
    trusted_proxies: int = 0
    trusted_hosts: tuple[str, ...] = ()
    max_upload: int = 64 * MB
    max_total: int = 0
    min_free: int = 0
    ttl: float = 0.0
    bind: str = "127.0.0.1:8010"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables; a wrong one raises an error that names it and its value.

        An empty variable counts as unset.
        """
        values: dict[str, Any] = {}
        for variable, (name, parse) in VARIABLES.items():
            text = environ.get(variable, "")
            if not text:
                continue
            try:
                values[name] = parse(text)
            except ValueError as error:
                shown = _mask(variable, text)
                raise SettingsError(f"{variable}={shown}: {error}") from None
        return cls(**values)


def _mask(variable: str, text: str) -> str:
    if variable.endswith("_TOKEN"):
        return "'***'"
    return repr(re.sub(r"//[^/?#]*@", "//***@", text))


def _parse_token(text: str) -> str:
    if len(text) > 4096 or text != text.strip() or not text.isprintable():
        raise ValueError(
            "a token has at most 4096 printable characters and no blank at its ends"
        )
    return text


def _parse_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError("it must be a number") from None
    if not math.isfinite(number) or number < 0 or number > 1e12:
        raise ValueError("it must be a number from 0 up")
    return number


def _parse_size(text: str) -> int:
    return int(_parse_number(text) * MB)


def _parse_upload_limit(text: str) -> int:
    size = _parse_size(text)
    if size < 1:
        raise ValueError("it must be above 0")
    return size


def _parse_ttl(text: str) -> float:
    return _parse_number(text) * 3600


def _parse_count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", text):
        raise ValueError("it must be a whole number from 0 to 99")
    return int(text)


def _parse_hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(host.strip() for host in text.split(","))
    if not all(re.fullmatch(r"\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", h) for h in hosts):
        raise ValueError("it must be names without port, with commas between them")
    return hosts


def _parse_bind(text: str) -> str:
    match = re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise ValueError("it must be HOST:PORT")
    return text


def _split_url(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018  (raises for a port that is no number)
    except ValueError:
        raise ValueError("it is no valid URL") from None
    if "@" in url.netloc:
        raise ValueError("a URL here carries no user name or password")
    if url.query or url.fragment or not text.isprintable() or " " in text:
        raise ValueError("a URL here has no blank, query or fragment")
    return url


def _parse_public_url(text: str) -> str:
    url = _split_url(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("it must be http://HOST or https://HOST, with a path or not")
    return text.rstrip("/")


def _parse_storage(text: str) -> Folder | Bucket:
    url = _split_url(text)
    if url.scheme == "file" and url.netloc in ("", "localhost"):
        path = Path(unquote(url.path))
        if path.is_absolute() and "\0" not in str(path):
            return Folder(path)
    if url.scheme == "s3" and re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}", url.netloc):
        prefix = unquote(url.path).strip("/")
        return Bucket(url.netloc, f"{prefix}/" if prefix else "")
    raise ValueError("it must be file:///FOLDER or s3://BUCKET/PREFIX")


VARIABLES: dict[str, tuple[str, Callable[[str], object]]] = {
    "BEARER_TOKEN": ("bearer_token", _parse_token),
    "UPLOAD_TOKEN": ("upload_token", _parse_token),
    "STORAGE_URL": ("storage", _parse_storage),
    "PUBLIC_URL": ("public_url", _parse_public_url),
    "FILES_TRUSTED_PROXIES": ("trusted_proxies", _parse_count),
    "FILES_TRUSTED_HOSTS": ("trusted_hosts", _parse_hosts),
    "FILES_MAX_UPLOAD_MB": ("max_upload", _parse_upload_limit),
    "FILES_MAX_TOTAL_MB": ("max_total", _parse_size),
    "FILES_MIN_FREE_MB": ("min_free", _parse_size),
    "FILES_TTL_HOURS": ("ttl", _parse_ttl),
    "FILES_BIND": ("bind", _parse_bind),
}
"""Each environment variable, the field it sets and the parser of its text."""
