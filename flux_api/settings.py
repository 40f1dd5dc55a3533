"""The API's settings: the one place that reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flux_api.api_keys import ApiKey
from flux_api.setting_values import Network, Reader

MIB = 2**20
Quantization = Literal["none", "nf4", "int8", "fp8"]
Offload = Literal["none", "model", "group", "sequential"]
Memory = Literal["auto", "manual"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an operator can set; each field is a row of README's table."""

    file_server: str | None = None
    file_server_public_url: str | None = None
    file_server_upload_token: str | None = field(default=None, repr=False)
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
    idempotency_mb: int = 256
    results_mb: int = 256
    body_timeout: float = 30.0
    log_level: LogLevel = "info"
    log_prompts: bool = False

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
        read = Reader(environ)
        return cls(
            file_server=read.url("FILE_SERVER"),
            file_server_public_url=read.url("FILE_SERVER_PUBLIC_URL"),
            file_server_upload_token=read.token("FILE_SERVER_UPLOAD_TOKEN"),
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
            idempotency_mb=read.integer("FLUX_IDEMPOTENCY_MB", 256, 0, 65_536),
            results_mb=read.integer("FLUX_RESULTS_MB", 256, 0, 65_536),
            body_timeout=read.number("FLUX_BODY_TIMEOUT", 30.0, 0.5, 3600),
            log_level=read.word("FLUX_LOG_LEVEL", LogLevel, "info"),
            log_prompts=read.switch("FLUX_LOG_PROMPTS"),
        )
