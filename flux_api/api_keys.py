"""API keys: how an operator writes them down, and whose key a caller has shown."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

_ENTRY = re.compile(r"([A-Za-z0-9._-]{1,64}):([\x21-\x2b\x2d-\x7e]{8,512})")
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


def holder_of(keys: Iterable[ApiKey], shown: bytes) -> str | None:
    """The name of the key that ``shown`` is, None when it is none of them. Takes the
    same time wherever the difference lies and whichever key it is."""
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
