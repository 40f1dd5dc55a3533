"""The API's settings, each described once; the one place that reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from flux_api import setting_values as values
from flux_api.api_keys import ApiKey
from flux_api.core import Performance
from flux_server.environment import EnvironmentSettings
from flux_server.environment import env as _env
from flux_server.state import state_folder

MIB = 2**20
LOCAL_NAMES = ("localhost", ".localhost", "127.0.0.1", "::1", "host.docker.internal")
"""How programs and pages of the same machine call a server."""
Quantization = Literal["none", "nf4", "int8", "fp8"]
Offload = Literal["none", "text", "model", "group", "sequential"]
"""How weights are stored, and what of them waits in the host's memory."""
Memory = Literal["auto", "manual"]
MetadataLevel = Literal["none", "mark", "recipe", "prompt"]
FilterFail = Literal["closed", "open"]
BackendName = Literal["local", "ray"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(EnvironmentSettings):
    """Everything that an operator can set; each field is a row of README's table."""

    file_server: Annotated[str | None, _env("FILE_SERVER"), values.url] = None
    """Base URL to upload pictures to; without one, answers carry Base64."""
    file_server_public_url: Annotated[
        str | None, _env("FILE_SERVER_PUBLIC_URL"), values.url
    ] = None
    """Base of the URLs given to callers, where they know it by another name."""
    file_server_upload_token: Annotated[
        str | None, _env("FILE_SERVER_UPLOAD_TOKEN"), values.token
    ] = None
    """The file server's UPLOAD_TOKEN."""
    file_server_upload_token_file: Annotated[
        Path | None, _env("FILE_SERVER_UPLOAD_TOKEN_FILE"), values.file
    ] = None
    """File with that token, read again when it changes."""
    file_server_token: Annotated[
        str | None, _env("FILE_SERVER_TOKEN"), values.token
    ] = None
    """The file server's BEARER_TOKEN, for recipe_of."""
    model: Annotated[str, _env("FLUX_MODEL")] = "tiny"
    """The model set that is loaded at start, or the path of a file or folder of
    weights; else the first of FLUX_MODELS."""
    model_like: Annotated[str | None, _env("FLUX_MODEL_LIKE")] = None
    """What a file in FLUX_MODEL is, where it does not say so itself."""
    components: Annotated[Path | None, _env("FLUX_COMPONENTS"), values.folder] = None
    """Folder in diffusers' layout with what is not in the file of FLUX_MODEL."""
    models: Annotated[tuple[str, ...], _env("FLUX_MODELS"), values.names] = ()
    """Sets that requests may name, comma-separated."""
    strict_models: Annotated[bool, _env("FLUX_STRICT_MODELS")] = False
    """Whether an unknown model is an error, not the default set."""
    model_info: Annotated[Path | None, _env("MODEL_INFO"), values.file] = None
    """TOML file that adds or overrides sets."""
    max_loaded: Annotated[int, _env("FLUX_MAX_LOADED", 1, 16)] = 1
    """How many sets stay in memory."""
    lora_dir: Annotated[Path | None, _env("FLUX_LORA_DIR"), values.folder] = None
    """Folder of LoRAs that requests may name."""
    quantization: Annotated[Quantization | None, _env("FLUX_QUANTIZATION")] = None
    """How weights are stored; without it, FLUX_MEMORY decides."""
    offload: Annotated[Offload | None, _env("FLUX_OFFLOAD")] = None
    """What waits in the computer's memory; without it, FLUX_MEMORY decides."""
    memory: Annotated[Memory, _env("FLUX_MEMORY")] = "auto"
    """Whether the card's free memory chooses quantization and offload."""
    max_upload_mb: Annotated[int, _env("FLUX_MAX_UPLOAD_MB", 1, 4096)] = 64
    """Largest request body in MiB."""
    trusted_proxies: Annotated[int, _env("FLUX_TRUSTED_PROXIES", 0, 10)] = 0
    """Number of proxies in front whose forwarding headers count."""
    instance: Annotated[int | None, _env("FLUX_INSTANCE", 0, 999)] = None
    """This server's number among several behind one address; the ids that it makes
    begin with it, as in g0-."""
    max_queue: Annotated[int, _env("FLUX_MAX_QUEUE", 1, 1000)] = 32
    """How many requests may wait."""
    max_watchers: Annotated[int, _env("FLUX_MAX_WATCHERS", 0, 1000)] = 32
    """How many connections may watch jobs."""
    max_per_caller: Annotated[int, _env("FLUX_MAX_PER_CALLER", 0, 1000)] = 0
    """How many requests of one caller may be here at once; 0: no bound of its own."""
    batch_tokens: Annotated[int | None, _env("FLUX_BATCH_TOKENS", 0, 10**6)] = None
    """Most tokens in one shared forward; 0: one picture a forward."""
    backend: Annotated[BackendName, _env("FLUX_BACKEND")] = "local"
    """Where pictures are made: in this process, or by a Ray cluster."""
    performance: Annotated[Performance, _env("FLUX_PERFORMANCE")] = "exact"
    """What pictures may pay for speed: exact nothing, speed rounding, max small
    differences."""
    state_dir: Annotated[Path | None, _env("FLUX_STATE_DIR"), values.new_folder] = None
    """Folder for what outlives a restart."""
    prompt_cache_mb: Annotated[int, _env("FLUX_PROMPT_CACHE_MB", 0, 65_536)] = 256
    """MiB of encoded prompts and pictures kept in the computer's memory; 0: none."""
    lora_cache_mb: Annotated[int, _env("FLUX_LORA_CACHE_MB", 0, 65_536)] = 1024
    """MiB of LoRAs that are kept in the computer's memory, a tenth of what is free at
    most, while no request asks for them; 0: none."""
    step_timeout: Annotated[float, _env("FLUX_STEP_TIMEOUT", 0.5, 86_400)] = 120.0
    """Seconds without a step after which the worker restarts."""
    request_timeout: Annotated[float, _env("FLUX_REQUEST_TIMEOUT", 1, 86_400)] = 280.0
    """Seconds after which a request is given up."""
    # In front of the keys, which are read from both at once.
    api_keys_file: Annotated[str | None, _env("FLUX_API_KEYS_FILE")] = None
    """File of more API keys, one name:key a line; read again when it changes."""
    api_keys: Annotated[
        tuple[ApiKey, ...],
        Field(alias="FLUX_API_KEYS", validate_default=True),
        values.keys,
    ] = ()
    """API keys as name:key, comma-separated; when there are any, requests need one."""
    cors_origins: Annotated[
        tuple[str, ...], _env("FLUX_CORS_ORIGINS"), values.origins
    ] = ()
    """Origins, comma-separated, whose web pages may call the API, or *."""
    trusted_hosts: Annotated[
        tuple[str, ...], _env("FLUX_TRUSTED_HOSTS"), values.hosts
    ] = ()
    """Names, comma-separated, under which this server may be called, .example.org for
    all below it, * for any; without it, on a loopback address only local ones."""
    allow_private_urls: Annotated[bool, _env("FLUX_ALLOW_PRIVATE_URLS")] = False
    """Whether input_image_url may reach every address."""
    allow_private_nets: Annotated[
        tuple[values.Network, ...], _env("FLUX_ALLOW_PRIVATE_NETS"), values.networks
    ] = ()
    """Networks that input_image_url may reach though they are private."""
    admin_keys: Annotated[
        tuple[ApiKey, ...], _env("FLUX_ADMIN_KEYS"), values.admin_keys
    ] = ()
    """Keys as name:key, comma-separated, for the routes below /admin; without any they
    are not there."""
    idle_unload: Annotated[float, _env("FLUX_IDLE_UNLOAD", 0, 10_080)] = 0.0
    """Minutes without a request after which the weights leave the device; 0: never."""
    bfl_models: Annotated[
        tuple[tuple[str, str], ...], _env("FLUX_BFL_MODELS"), values.pairs
    ] = ()
    """What names of Black Forest Labs' hosted models mean here, as name=set,
    comma-separated."""
    webhook_hosts: Annotated[
        tuple[str, ...], _env("FLUX_WEBHOOK_HOSTS"), values.hosts
    ] = ()
    """Hosts, comma-separated, that requests may have their end told to, .example.org
    for all below it, * for any public one."""
    results_mb: Annotated[int, _env("FLUX_RESULTS_MB", 0, 65_536)] = 256
    """MiB of finished pictures kept for GET /jobs/<id>/result and Idempotency-Key; 0:
    none."""
    decoded_mb: Annotated[int, _env("FLUX_DECODED_MB", 64, 65_536)] = 512
    """MiB that decoded input pictures take together; beyond it others wait, then
    503."""
    body_timeout: Annotated[float, _env("FLUX_BODY_TIMEOUT", 0.5, 3600)] = 30.0
    """Seconds in which a request's head must be there, its body bring at least 64 KiB
    or its end, and some of the answer be taken."""
    metadata: Annotated[MetadataLevel, _env("FLUX_METADATA")] = "recipe"
    """What pictures say of themselves: nothing, a mark that they are synthetic, or how
    they were made as well, without prompts or with them."""
    c2pa_cert: Annotated[Path | None, _env("FLUX_C2PA_CERT"), values.file] = None
    """PEM file of the certificate, with those between it and its root, that finished
    pictures are signed with."""
    c2pa_key: Annotated[Path | None, _env("FLUX_C2PA_KEY"), values.file] = None
    """PEM file of its private key."""
    c2pa_timestamp_url: Annotated[
        str | None, _env("FLUX_C2PA_TIMESTAMP_URL"), values.url
    ] = None
    """A time stamp authority that signatures get a time from."""
    filter: Annotated[str | None, _env("FLUX_FILTER"), values.review] = None
    """What may refuse finished pictures: module:function, or a URL."""
    filter_timeout: Annotated[float, _env("FLUX_FILTER_TIMEOUT", 0.1, 600)] = 10.0
    """Seconds that it has for a picture."""
    filter_fail: Annotated[FilterFail, _env("FLUX_FILTER_FAIL")] = "closed"
    """Whether a picture is refused or delivered where it fails."""
    metrics_bind: Annotated[str | None, _env("FLUX_METRICS_BIND"), values.address] = (
        None
    )
    """An address of its own for GET /metrics, which then needs no key."""
    log_level: Annotated[LogLevel, _env("FLUX_LOG_LEVEL")] = "info"
    """The least serious lines that are logged."""
    log_prompts: Annotated[bool, _env("FLUX_LOG_PROMPTS")] = False
    """Whether prompts are written to the log."""

    @property
    def max_upload_bytes(self) -> int:
        """Largest request body in bytes."""
        return self.max_upload_mb * MIB

    @property
    def state_folder(self) -> Path:
        """Where what outlives a restart lies: FLUX_STATE_DIR, else ``state`` beside
        what the file server stores by default."""
        return self.state_dir or state_folder() / "state"

    @property
    def public_file_server(self) -> str | None:
        """The base of URLs given to callers, without a slash at its end."""
        return self.file_server_public_url or self.file_server

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port of ``metrics_bind``."""
        if self.metrics_bind is None:
            return None
        host, _, port = self.metrics_bind.rpartition(":")
        return host.strip("[]"), int(port)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings in ``environ``; BadSetting names the variable that is wrong."""
        settings = values.read(cls, environ)
        if settings.models and "model" not in settings.model_fields_set:
            return settings.model_copy(update={"model": settings.models[0]})
        return settings
