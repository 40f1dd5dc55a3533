"""The API's settings: the one place that reads the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from flux_api.keys import ApiKey, parse_keys

MIB = 2**20
_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]+")
Network = IPv4Network | IPv6Network
Quantization = Literal["none", "nf4", "int8", "fp8"]
Offload = Literal["none", "model", "group", "sequential"]
Memory = Literal["auto", "manual"]


class BadSetting(ValueError):
    """A setting that cannot be used; the message names the variable and its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an operator can set; each field is a row of README's table."""

    file_server: str | None = None
    file_server_public_url: str | None = None
    file_server_upload_token: str | None = None
    model: str = "tiny"
    models: tuple[str, ...] = ()
    strict_models: bool = False
    model_info: Path | None = None
    max_loaded: int = 1
    lora_dir: Path | None = None
    quantization: Quantization | None = None
    offload: Offload | None = None
    memory: Memory = "auto"
    max_upload_mb: int = 64
    trusted_proxies: int = 0
    max_queue: int = 32
    max_watchers: int = 32
    max_per_caller: int = 0
    batch_tokens: int | None = None
    step_timeout: float = 120.0
    request_timeout: float = 280.0
    api_keys: tuple[ApiKey, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allow_private_urls: bool = False
    allow_private_nets: tuple[Network, ...] = ()

    @property
    def max_upload_bytes(self) -> int:
        """Largest request body in bytes."""
        return self.max_upload_mb * MIB

    @property
    def public_file_server(self) -> str | None:
        """The base of URLs given to callers, without a slash at its end."""
        return self.file_server_public_url or self.file_server

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings in ``environ``; BadSetting names the variable that is wrong."""
        read = _Reader(environ)
        return cls(
            file_server=read.url("FILE_SERVER"),
            file_server_public_url=read.url("FILE_SERVER_PUBLIC_URL"),
            file_server_upload_token=read.text("FILE_SERVER_UPLOAD_TOKEN"),
            model=read.text("FLUX_MODEL")
            or next(iter(read.names("FLUX_MODELS")), "tiny"),
            models=read.names("FLUX_MODELS"),
            strict_models=read.switch("FLUX_STRICT_MODELS"),
            model_info=read.file("MODEL_INFO"),
            max_loaded=read.integer("FLUX_MAX_LOADED", 1, 1, 16),
            lora_dir=read.folder("FLUX_LORA_DIR"),
            quantization=read.word("FLUX_QUANTIZATION", Quantization, None),
            offload=read.word("FLUX_OFFLOAD", Offload, None),
            memory=read.word("FLUX_MEMORY", Memory, "auto"),
            max_upload_mb=read.integer("FLUX_MAX_UPLOAD_MB", 64, 1, 4096),
            trusted_proxies=read.integer("FLUX_TRUSTED_PROXIES", 0, 0, 10),
            max_queue=read.integer("FLUX_MAX_QUEUE", 32, 1, 1000),
            max_watchers=read.integer("FLUX_MAX_WATCHERS", 32, 0, 1000),
            max_per_caller=read.integer("FLUX_MAX_PER_CALLER", 0, 0, 1000),
            batch_tokens=read.optional_integer("FLUX_BATCH_TOKENS", 0, 10**6),
            step_timeout=read.number("FLUX_STEP_TIMEOUT", 120.0, 0.5, 86_400),
            request_timeout=read.number("FLUX_REQUEST_TIMEOUT", 280.0, 1, 86_400),
            api_keys=read.keys("FLUX_API_KEYS", "FLUX_API_KEYS_FILE"),
            cors_origins=read.origins("FLUX_CORS_ORIGINS"),
            allow_private_urls=read.switch("FLUX_ALLOW_PRIVATE_URLS"),
            allow_private_nets=read.networks("FLUX_ALLOW_PRIVATE_NETS"),
        )


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        text = self.text(name)
        if text is None:
            return default
        if text.isascii() and text.isdigit() and low <= int(text) <= high:
            return int(text)
        raise BadSetting(f"{name}={text!r}: a whole number from {low} to {high}")

    def optional_integer(self, name: str, low: int, high: int) -> int | None:
        return None if self.text(name) is None else self.integer(name, 0, low, high)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        text = self.text(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if low <= value <= high:
            return value
        raise BadSetting(f"{name}={text!r}: a number from {low:g} to {high:g}")

    def switch(self, name: str) -> bool:
        text = self.text(name)
        if text in (None, "0", "1"):
            return text == "1"
        raise BadSetting(f"{name}={text!r}: 0 or 1")

    def url(self, name: str) -> str | None:
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
            )
        except ValueError:
            usable = False
        if not usable:
            raise BadSetting(f"{name}={text!r}: a URL like http://127.0.0.1:8010")
        return text.rstrip("/")

    def keys(self, name: str, file_name: str) -> tuple[ApiKey, ...]:
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
        except (OSError, ValueError) as error:
            # The message never holds a key: what can be read in a log is no secret.
            why = getattr(error, "strerror", None) or error
            raise BadSetting(f"{source}: {why}") from None
        return keys

    def origins(self, name: str) -> tuple[str, ...]:
        text = self.text(name)
        if text is None:
            return ()
        found = tuple(part.strip() for part in text.split(","))
        if not all(part == "*" or _ORIGIN.fullmatch(part) for part in found):
            raise BadSetting(f"{name}={text!r}: * or origins like https://example.org")
        return found

    def networks(self, name: str) -> tuple[Network, ...]:
        text = self.text(name)
        if text is None:
            return ()
        try:
            return tuple(ip_network(part.strip()) for part in text.split(","))
        except ValueError:
            raise BadSetting(
                f"{name}={text!r}: networks like 192.168.1.0/24,fd00::/8"
            ) from None

    def word(self, name: str, known: Any, default: Any) -> Any:
        """One of the words of the Literal ``known``."""
        text = self.text(name)
        if text is None:
            return default
        if text in get_args(known):
            return text
        raise BadSetting(f"{name}={text!r}: one of {', '.join(get_args(known))}")

    def names(self, name: str) -> tuple[str, ...]:
        """The parts between commas, each once."""
        parts = (part.strip() for part in (self.text(name) or "").split(","))
        return tuple(dict.fromkeys(part for part in parts if part))

    def file(self, name: str) -> Path | None:
        text = self.text(name)
        if text is None:
            return None
        path = Path(text).expanduser()
        if not path.is_file():
            raise BadSetting(f"{name}={text!r}: no such file")
        return path

    def folder(self, name: str) -> Path | None:
        text = self.text(name)
        if text is None:
            return None
        path = Path(text).expanduser()
        if not path.is_dir():
            raise BadSetting(f"{name}={text!r}: no such folder")
        return path
