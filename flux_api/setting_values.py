"""Values of settings as operators write them; what is wrong is named, secrets never."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from flux_api.api_keys import ApiKey, parse_keys
from flux_api.errors import BadSetting

Network = IPv4Network | IPv6Network

_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]+")
_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
_SECRET_PARTS = re.compile(r"(?<=//)[^/]*@|[?#].*", re.DOTALL)
_LONGEST_SHOWN = 200


class Reader:
    """The variables of ``environ``, one method a kind of value; each raises BadSetting
    where the value is wrong. Unset, empty and blank are the same."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        """As it stands, without blanks around it."""
        return self._environ.get(name, "").strip() or None

    def token(self, name: str) -> str | None:
        """A secret to send along; no message shows it."""
        text = self.text(name)
        if text is None or _TOKEN.fullmatch(text):
            return text
        raise BadSetting(f"{name}=***: visible ASCII characters only, 4096 at most")

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        text = self.text(name)
        if text is None:
            return default
        if _WHOLE.fullmatch(text) and low <= int(text) <= high:
            return int(text)
        raise _bad(name, text, f"a whole number from {low} to {high}")

    def optional_integer(self, name: str, low: int, high: int) -> int | None:
        """As :meth:`integer`, None when absent."""
        return None if self.text(name) is None else self.integer(name, 0, low, high)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A decimal number from ``low`` to ``high``."""
        text = self.text(name)
        if text is None:
            return default
        if _NUMBER.fullmatch(text) and low <= float(text) <= high:
            return float(text)
        raise _bad(name, text, f"a number from {low:g} to {high:g}")

    def switch(self, name: str) -> bool:
        """0 or 1."""
        text = self.text(name)
        if text in (None, "0", "1"):
            return text == "1"
        raise _bad(name, text, "0 or 1")

    def url(self, name: str) -> str | None:
        """The base of an http or https server, without a slash at its end."""
        text = self.text(name)
        if text is None:
            return None
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
            shown = _SECRET_PARTS.sub("***", text)
            raise _bad(name, shown, "a URL like http://127.0.0.1:8010")
        return text.rstrip("/")

    def keys(self, name: str, file_name: str) -> tuple[ApiKey, ...]:
        """API keys in the variable itself and in the file that another one names."""
        text = self._environ.get(name, "")
        path = self.text(file_name)
        source = name
        try:
            keys = parse_keys(text)
            if path is not None:
                source = f"{file_name}={path!r}"
                text += "\n" + Path(path).expanduser().read_text("utf-8")
                keys = parse_keys(text)
            # Never open by mistake: what was set has to name somebody.
            if (path or text.strip()) and not keys:
                raise ValueError("no key in it")
        except UnicodeDecodeError:
            raise BadSetting(f"{source}: no text in UTF-8") from None
        except (OSError, ValueError) as error:
            # The message never holds a key: what can be read in a log is no secret.
            why = getattr(error, "strerror", None) or error
            raise BadSetting(f"{source}: {why}") from None
        return keys

    def origins(self, name: str) -> tuple[str, ...]:
        """Origins of web pages, or ``*``."""
        text = self.text(name)
        if text is None:
            return ()
        found = tuple(part.strip() for part in text.split(","))
        if not all(part == "*" or _ORIGIN.fullmatch(part) for part in found):
            raise _bad(name, text, "* or origins like https://example.org")
        return found

    def networks(self, name: str) -> tuple[Network, ...]:
        """Networks in CIDR notation."""
        text = self.text(name)
        if text is None:
            return ()
        try:
            return tuple(ip_network(part.strip()) for part in text.split(","))
        except ValueError:
            raise _bad(name, text, "networks like 192.168.1.0/24,fd00::/8") from None

    def word(self, name: str, known: Any, default: Any) -> Any:
        """One of the words of the Literal ``known``."""
        text = self.text(name)
        if text is None:
            return default
        if text in get_args(known):
            return text
        raise _bad(name, text, f"one of {', '.join(get_args(known))}")

    def names(self, name: str) -> tuple[str, ...]:
        """The parts between commas, each once."""
        parts = (part.strip() for part in (self.text(name) or "").split(","))
        return tuple(dict.fromkeys(part for part in parts if part))

    def file(self, name: str) -> Path | None:
        """A file that exists."""
        return self._path(name, Path.is_file, "no such file")

    def folder(self, name: str) -> Path | None:
        """A folder that exists."""
        return self._path(name, Path.is_dir, "no such folder")

    def _path(self, name: str, exists: Any, complaint: str) -> Path | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            path = Path(text).expanduser()
            found = exists(path)
        except (OSError, ValueError, RuntimeError):
            found = False
        if not found:
            raise _bad(name, text, complaint)
        return path


def _bad(name: str, text: str | None, expected: str) -> BadSetting:
    shown = repr(text if text is None else text[:_LONGEST_SHOWN])
    return BadSetting(f"{name}={shown}: {expected}")
