"""API keys and tokens: how an operator writes them down, in a setting or in a file that
may change, and whose key a caller has shown."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from flux_api.errors import BadSetting
from flux_server.watched_file import WatchedFile, watch

_ENTRY = re.compile(r"([A-Za-z0-9._-]{1,64}):([\x21-\x2b\x2d-\x7e]{8,512})")
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
_SEPARATOR = re.compile(r"[,\n]")
_COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key and the name of who holds it; several keys may share a name."""

    name: str
    secret: str = field(repr=False)


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys in ``name:key`` entries, separated by commas or line ends; lines that
    start with ``#`` are comments. ValueError tells which entry is wrong, but no key."""
    entries = _SEPARATOR.split(_COMMENT.sub("", text))
    keys: list[ApiKey] = []
    for number, entry in enumerate(filter(None, map(str.strip, entries)), 1):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(
                f"entry {number} is not name:key (a name of letters, digits, '.', '_' "
                "and '-', a key of 8 or more visible ASCII characters)"
            )
        if match[2] in (key.secret for key in keys):
            raise ValueError(f"entry {number} repeats a key")
        keys.append(ApiKey(match[1], match[2]))
    return tuple(keys)


def watch_keys(
    keys: tuple[ApiKey, ...], path: str | None
) -> Callable[[], tuple[ApiKey, ...]]:
    """The keys that count now. ``keys`` are those of the start; the ones among them
    that the file at ``path`` held then are what it says now."""
    if path is None:
        return lambda: keys
    file = Path(path).expanduser()
    at_start = parse_keys(file.read_text("utf-8"))
    others = tuple(key for key in keys if key not in at_start)

    def merge(text: str) -> tuple[ApiKey, ...]:
        found = parse_keys(text)
        if {key.secret for key in found} & {key.secret for key in others}:
            raise ValueError("it repeats a key of FLUX_API_KEYS")
        # Never open by mistake: an emptied file does not take the last key away.
        if not (found or others):
            raise ValueError("no key in it")
        return (*others, *found)

    watched = WatchedFile("FLUX_API_KEYS_FILE", file, merge)
    return lambda: watched.value


def parse_token(text: str) -> str:
    """The token in ``text``, as a file with a line end holds it, too."""
    if not _TOKEN.fullmatch(text.strip()):
        raise ValueError("visible ASCII characters only, 4096 at most")
    return text.strip()


def watch_token(token: str | None, path: Path | None) -> Callable[[], str | None]:
    """The upload token that counts now: ``token``, or what the file at ``path`` says.
    BadSetting where that holds none."""
    try:
        return watch("FILE_SERVER_UPLOAD_TOKEN_FILE", token, path, parse_token)
    except ValueError as error:
        raise BadSetting(str(error)) from None


def holder_of(keys: Iterable[ApiKey], shown: bytes) -> str | None:
    """The name of the key that ``shown`` is, None when it is none of them. Takes the
    same time wherever the difference lies and whichever key it is."""
    # Digests are of one length, so that comparing tells nothing of the key's.
    digest, found = sha256(shown).digest(), None
    for key in keys:
        if hmac.compare_digest(sha256(key.secret.encode()).digest(), digest):
            found = key.name
    return found


def is_loopback(address: object) -> bool:
    """Whether a listener's ``address``, (host, port) or a socket's path, can be reached
    from this machine only."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0]).strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
