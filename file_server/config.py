"""The file server's settings: the one reader of its environment."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import ValidationError

from flux_server.environment import EnvironmentSettings, parsed
from flux_server.environment import env as _env
from flux_server.state import state_folder

from .errors import SettingsError

# Documented, so everybody knows it: the start warns.
DEFAULT_TOKEN = "changeme-token"
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


DEFAULT_STORAGE = Folder(state_folder() / "images")


def _mask(variable: str, text: str) -> str:
    if variable.endswith("_TOKEN"):
        return "'***'"
    # In front of the @ there may be a password.
    return repr(re.sub(r"//[^/?#]*@", "//***@", text))


def parse_token(text: str) -> str:
    """The token that a file holds, with or without a line end."""
    if not text.strip():
        raise ValueError("no token in it")
    return check_token(text.strip())


def check_token(text: str) -> str:
    """Return a token as it is, where it is one."""
    if len(text) > 4096 or text != text.strip() or not text.isprintable():
        raise ValueError(
            "a token has at most 4096 printable characters and no blank at its ends"
        )
    return text


_token = parsed(check_token)


@parsed
def _file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError("no such file")
    return path


def _parse_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError("it must be a number") from None
    if not math.isfinite(number) or number < 0 or number > 1e12:
        raise ValueError("it must be a number from 0 up")
    return number


@parsed
def _size(text: str) -> int:
    return int(_parse_number(text) * MB)


@parsed
def _seconds(text: str) -> float:
    seconds = _parse_number(text)
    if not 0.5 <= seconds <= 3600:
        raise ValueError("it must be a number from 0.5 to 3600")
    return seconds


@parsed
def _ttl(text: str) -> float:
    return _parse_number(text) * 3600


@parsed
def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", text):
        raise ValueError("it must be a whole number from 0 to 99")
    return int(text)


@parsed
def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(host.strip() for host in text.split(","))
    if not all(re.fullmatch(r"\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", h) for h in hosts):
        raise ValueError("it must be names without port, with commas between them")
    return hosts


@parsed
def _bind(text: str) -> str:
    match = re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise ValueError("it must be HOST:PORT")
    return text


def _split_url(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018  (raises for a port that is no number)
    except ValueError:
        raise ValueError("it is not a valid URL") from None
    if "@" in url.netloc:
        raise ValueError("the URL must not contain a user name or password")
    if url.query or url.fragment or not text.isprintable() or " " in text:
        raise ValueError("the URL must not contain a blank, a query or a fragment")
    return url


@parsed
def _public_url(text: str) -> str:
    url = _split_url(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("it must be http://HOST or https://HOST, with a path or not")
    return text.rstrip("/")


@parsed
def _storage(text: str) -> Folder | Bucket:
    url = _split_url(text)
    if url.scheme == "file" and url.netloc in ("", "localhost"):
        path = Path(unquote(url.path))
        if path.is_absolute() and "\0" not in str(path):
            return Folder(path)
    if url.scheme == "s3" and re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,62}", url.netloc):
        prefix = unquote(url.path).strip("/")
        return Bucket(url.netloc, f"{prefix}/" if prefix else "")
    raise ValueError("it must be file:///FOLDER or s3://BUCKET/PREFIX")


class Settings(EnvironmentSettings):
    """Everything that can be set; sizes are in bytes, the age in seconds, 0 is off."""

    bearer_token: Annotated[str, _env("BEARER_TOKEN"), _token] = DEFAULT_TOKEN
    """Token for /latest, /latest/raw, /metrics and the recipes of pictures."""
    bearer_token_file: Annotated[Path | None, _env("BEARER_TOKEN_FILE"), _file] = None
    """File with that token instead, read again when it changes."""
    upload_token: Annotated[str, _env("UPLOAD_TOKEN"), _token] = ""
    """When set, POST /upload needs it as a bearer token."""
    upload_token_file: Annotated[Path | None, _env("UPLOAD_TOKEN_FILE"), _file] = None
    """File with that token instead, read again when it changes."""
    storage: Annotated[Folder | Bucket, _env("STORAGE_URL"), _storage] = DEFAULT_STORAGE
    """Where pictures are kept, file:///FOLDER or s3://BUCKET/PREFIX."""
    public_url: Annotated[str, _env("PUBLIC_URL"), _public_url] = ""
    """Base of the URLs in /latest; without it, the request's."""
    trusted_proxies: Annotated[int, _env("FILES_TRUSTED_PROXIES", 0, 99), _count] = 0
    """Number of proxies in front whose forwarding headers count."""
    trusted_hosts: Annotated[tuple[str, ...], _env("FILES_TRUSTED_HOSTS"), _hosts] = ()
    """Host names that /latest may put in a URL while PUBLIC_URL is unset."""
    max_upload: Annotated[int, _env("FILES_MAX_UPLOAD_MB", 1), _size] = 64 * MB
    """Largest upload; the variable is in MiB."""
    max_total: Annotated[int, _env("FILES_MAX_TOTAL_MB", 0), _size] = 0
    """Most that is stored together; the variable is in MiB, 0 is no limit."""
    min_free: Annotated[int, _env("FILES_MIN_FREE_MB", 0), _size] = 0
    """What is left free of the disk; the variable is in MiB."""
    body_timeout: Annotated[float, _env("FILES_BODY_TIMEOUT", 0.5), _seconds] = 30.0
    """Seconds in which a request's head must be there, its body bring at least 64 KiB
    or its end, and some of the answer be taken."""
    ttl: Annotated[float, _env("FILES_TTL_HOURS", 0), _ttl] = 0.0
    """Age at which a picture is removed; the variable is in hours, 0 keeps."""
    bind: Annotated[str, _env("FILES_BIND"), _bind] = "127.0.0.1:8010"
    """Address of image_file_server.py."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables; a wrong one raises an error that names it and its value.

        An empty variable counts as unset.
        """
        given = {name: environ[name] for name in cls.variables() if environ.get(name)}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
        # Only the bound of the largest upload is not checked with the text.
        why = first.get("ctx", {}).get("error", "it must be above 0")
        variable = str(first["loc"][0])
        shown = _mask(variable, given[variable])
        raise SettingsError(f"{variable}={shown}: {why}")
