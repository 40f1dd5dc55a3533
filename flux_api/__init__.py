"""Flux Imaging API: a self-hosted HTTP server for Flux image generation and editing.

This module puts the parts together; nothing but ``wsgi.py`` and tests imports it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from flux_api import logs, setting_values
from flux_api.api_keys import is_loopback, watch_keys, watch_token
from flux_api.blueprints import admin, jobs, metrics, original, page, service
from flux_api.blueprints.a1111 import routes as a1111
from flux_api.blueprints.bfl import routes as bfl
from flux_api.blueprints.description import routes as description
from flux_api.blueprints.mcp import routes as mcp
from flux_api.blueprints.openai import routes as openai
from flux_api.core import Performance
from flux_api.errors import BadSetting
from flux_api.http.context import Context
from flux_api.http.hosts import TrustedHosts
from flux_api.http.install import install
from flux_api.http.json_text import Provider
from flux_api.http.kept_answers import KeptAnswers
from flux_api.images.decoder import CHILDREN, Decoder
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.file_sets import with_path
from flux_api.models.file_stamps import look_at_files
from flux_api.models.hub import Report
from flux_api.models.info import COMPONENTS, ModelInfo, TaskName
from flux_api.models.lora_files import LoraFolder
from flux_api.models.near_names import did_you_mean
from flux_api.models.sources import Folder, Source
from flux_api.models.toml_file import load_models
from flux_api.models.upscaling import with_upscale
from flux_api.net.content_filter import open_filter
from flux_api.net.fetch import Fetcher, FetchPolicy
from flux_api.net.file_server import FileServer
from flux_api.net.webhooks import Webhooks
from flux_api.queue.filtering import FilteredBackend
from flux_api.queue.manager import PipelineManager
from flux_api.queue.readiness import Handover
from flux_api.queue.results import ResultStore
from flux_api.queue.shares import Shares
from flux_api.queue.tasks import Backend
from flux_api.settings import Settings
from flux_server import state

if TYPE_CHECKING:
    from flux_api.engine.backend import DiffusersBackend

logger = logging.getLogger(__name__)

SPIN_COUNT = "1000"
"""How often a CPU thread that waits for the others looks again before it sleeps. With
libgomp's own 300,000 it takes the core from those that it waits for on a busy machine;
with none it sleeps at every wait, which an idle machine pays for."""

_SAY_SECONDS = 10.0
_manager: PipelineManager | None = None
_manager_lock = threading.Lock()


def create_app(
    settings: Settings | None = None, *, manager: PipelineManager | None = None
) -> Flask:
    """The API as a Flask application. Without ``manager`` it shares the process's own;
    loading begins when the server says that the worker has booted (see
    ``gunicorn.conf.py``), else at the first request. BadSetting names a wrong one."""
    settings = settings or Settings.from_env(os.environ)
    logs.configure(settings.log_level)
    for sentence in setting_values.unknown(Settings, os.environ):
        logger.warning(sentence)
    if settings.trusted_proxies and _is_hidden(settings):
        logger.warning(
            "FILE_SERVER is an address of this machine: callers behind the proxy need "
            "FILE_SERVER_PUBLIC_URL, the address under which they reach it"
        )
    models = offered_models(settings)
    # The path of a file shows nowhere: it is known by its set's name.
    named = settings.model_copy(update={"model": next(iter(models))})
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.max_upload_bytes
    # A redirect to the tidied path would be built from the caller's Host.
    app.url_map.merge_slashes = False
    app.json = Provider(app)
    results = ResultStore(settings.results_mb << 20)
    fetcher = Fetcher(fetch_policy(settings))
    context = Context(
        settings=named,
        keys=watch_keys(settings.api_keys, settings.api_keys_file),
        manager=manager or get_manager(settings, models[named.model].sources),
        models=models,
        known=frozenset(load_models(settings.model_info, MODEL_INFO)),
        loras=LoraFolder(settings.lora_dir),
        hosts=TrustedHosts(settings.trusted_hosts),
        fetcher=fetcher,
        decoder=Decoder(settings.decoded_mb << 20),
        # One child is always left for others, whatever a caller's pictures cost.
        decodes=Shares(CHILDREN, CHILDREN - 1, seconds=30, purpose="are decoded"),
        fetches=Shares(16, 4, seconds=5, purpose="are fetched"),
        file_server=file_server(settings),
        watchers=threading.BoundedSemaphore(settings.max_watchers),
        results=results,
        kept_answers=KeptAnswers(results),
        webhooks=Webhooks(
            fetcher, settings.webhook_hosts, state_folder(settings) / "webhooks"
        ),
    )
    app.extensions["flux_api"] = context
    install(app)
    for blueprint in (page.bp, original.bp, jobs.bp, service.bp, description.bp):
        app.register_blueprint(blueprint)
    # Where a client knows no address but its base URL, errors in its dialect.
    app.register_blueprint(jobs.bp, name="openai_jobs", url_prefix="/v1/jobs")
    if settings.admin_keys:
        app.register_blueprint(admin.bp)
    openai.register(app)
    bfl.register(app)
    a1111.register(app)
    app.register_blueprint(mcp.bp)
    metrics.register(app, context)
    if hops := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=0, x_prefix=0
        )
    return app


def _is_hidden(settings: Settings) -> bool:
    """Whether callers are given URLs that only this machine can open, and nobody said
    that they should be."""
    base = settings.file_server
    if settings.file_server_public_url is not None:
        return False
    return base is not None and is_loopback((urlsplit(base).hostname or "",))


def get_manager(settings: Settings, sources: Sequence[Source]) -> PipelineManager:
    """The process's one pipeline manager, made at the first call; loading that failed
    is tried again when the files of ``sources`` change."""
    global _manager
    with _manager_lock:
        if _manager is None:
            check_machine(settings)
            filtered = content_filter(settings)
            manager = PipelineManager(
                lambda: filtered(_make_backend(settings, manager.handover)),
                look_at_files=lambda: look_at_files(sources, settings.model_info),
                max_queue=settings.max_queue,
                idle_seconds=settings.idle_unload * 60,
                max_per_caller=settings.max_per_caller,
                step_timeout=settings.step_timeout,
            )
            _manager = manager
        return _manager


def offered_models(settings: Settings) -> dict[str, ModelInfo]:
    """The sets that requests may ask for, the default first: those of FLUX_MODELS, else
    those that MODEL_INFO adds. BadSetting where one is unknown, or what MODEL_INFO says
    of them is wrong."""
    known = load_models(settings.model_info, MODEL_INFO)
    default, known = with_path(
        known, settings.model, settings.model_like, settings.components
    )
    for variable, names in (
        ("FLUX_MODELS", settings.models),
        ("FLUX_MODEL", (default,)),
        ("FLUX_BFL_MODELS", tuple(name for _, name in settings.bfl_models)),
    ):
        for name in names:
            if name not in known:
                listed = ", ".join(known)
                meant = did_you_mean(name, known)
                raise BadSetting(f"{variable}={name!r}: one of {listed}.{meant}")
    added = tuple(name for name in known if name not in MODEL_INFO)
    names = (default, *(settings.models or added))
    loras = LoraFolder(settings.lora_dir).names
    for name in names:
        for task, defaults in known[name].tasks.items():
            for lora in defaults.loras:
                if lora.name not in known[name].lora_files.keys() | loras:
                    raise BadSetting(
                        f"MODEL_INFO: {name}.tasks.{task}.loras.{lora.name}: there is "
                        f"no {name}.loras.{lora.name}, nor such a file in FLUX_LORA_DIR"
                    )
    return {name: with_upscale(known[name]) for name in names}


def fetch_policy(settings: Settings) -> FetchPolicy:
    """What ``input_image_url`` may reach under ``settings``."""
    own = (settings.file_server, settings.file_server_public_url)
    return FetchPolicy(
        own_origins=tuple(base for base in own if base),
        allowed_networks=settings.allow_private_nets,
        allow_private=settings.allow_private_urls,
        max_bytes=settings.max_upload_bytes,
    )


def state_folder(settings: Settings) -> Path:
    """Where what outlives a restart lies: FLUX_STATE_DIR, else ``state`` in the folder
    that the file server stores in, too."""
    if settings.state_dir is not None:
        return settings.state_dir
    return state.state_folder() / "state"


def file_server(settings: Settings) -> FileServer | None:
    """Where pictures are uploaded to, None where answers carry Base64."""
    if settings.file_server is None or settings.public_file_server is None:
        return None
    return FileServer(
        settings.file_server,
        settings.public_file_server,
        watch_token(
            settings.file_server_upload_token, settings.file_server_upload_token_file
        ),
        settings.file_server_token,
    )


def content_filter(settings: Settings) -> Callable[[Backend], Backend]:
    """What puts FLUX_FILTER in front of a backend's pictures, where there is one;
    BadSetting where it is none."""
    if settings.filter is None:
        return lambda backend: backend
    review = open_filter(settings.filter, settings.filter_timeout)
    return lambda backend: FilteredBackend(
        backend,
        review,
        seconds=settings.filter_timeout,
        fails_open=settings.filter_fail == "open",
    )


def check_machine(settings: Settings) -> None:
    """BadSetting where this machine cannot quantize or offload as ``settings``, or one
    of the sets, say; torch is imported only where they say so."""
    wanted = {(settings.quantization or "none", settings.offload or "none")}
    for info in offered_models(settings).values():
        quantization = info.quantization or settings.quantization or "none"
        wanted.add((quantization, info.offload or settings.offload or "none"))
    for quantization, offload in wanted - {("none", "none")}:
        from flux_api.loading.placement import check_placement, choose_device

        check_placement(quantization, offload, choose_device())


@dataclass(frozen=True, slots=True)
class Measured:
    """What one level of FLUX_PERFORMANCE costs: mean PSNR in dB and SSIM to exact
    pictures, seconds a picture, why it is not to be used (empty where it is good), and
    whether that is a fault."""

    level: str
    psnr: float
    ssim: float
    exact_seconds: float
    seconds: float
    refusal: str
    failed: bool


def measure_quality(
    settings: Settings, levels: Sequence[Performance], report: Report
) -> list[Measured]:
    """Draw the default set's quality pictures with each of ``levels``, and keep the
    verdicts. FluxError where the set cannot be loaded."""
    logs.configure(settings.log_level)
    check_machine(settings)
    told = settings.model_copy(update={"performance": "max"})
    backend = _make_backend(told, None)
    from flux_api.engine.quality import NOTHING

    return [
        Measured(
            level,
            found.psnr,
            found.ssim,
            found.exact_seconds,
            found.seconds,
            refusal := found.refusal(level),
            refusal not in ("", NOTHING),
        )
        for level, found in backend.judge(levels, report).items()
    ]


def _make_backend(settings: Settings, handover: Handover | None) -> DiffusersBackend:
    models = offered_models(settings)
    if "OMP_WAIT_POLICY" not in os.environ:
        # libgomp reads it when torch is imported; benchmarks/first_picture.py
        # compares it with other values, idle and busy.
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    if settings.performance != "exact":
        # A temporary folder, the default, is gone with the container.
        compiled = str(state_folder(settings) / "compiled")
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", compiled)
    _keep_bitsandbytes_out(settings, models)
    # Imports torch and diffusers: seconds, spent in the loading thread.
    from flux_api.engine.backend import DiffusersBackend
    from flux_api.engine.tuning import Tuner
    from flux_api.engine.verdicts import Verdicts
    from flux_api.loading.beforehand import check_files, check_memory
    from flux_api.loading.memory import choose_placement, free_host_bytes
    from flux_api.loading.model_sets import ModelSets
    from flux_api.loading.placement import Placement, choose_device
    from flux_api.loading.second_copy import has_room_for_another

    device = choose_device()

    def place(name: str, info: ModelInfo, report: Report) -> Placement:
        return choose_placement(name, info, settings, device, report)

    def place_beside(name: str, info: ModelInfo, report: Report) -> Placement:
        """Where an older worker holds the set too, only like that one."""
        placement = place(name, info, report)
        if handover is None or name != next(iter(models)):
            return placement
        if handover.beside and not (
            handover.waits
            and handover.placement == str(placement)
            and has_room_for_another(handover.older, device)
        ):
            waiting = "waiting for the old worker's end: no room for both"
            report(waiting)
            while not handover.make_room(_SAY_SECONDS):
                report(waiting)  # as a sign of life
            placement = place(name, info, report)
        handover.placement = str(placement)
        return placement

    def check(name: str, task: TaskName, report: Report) -> None:
        check_files(models[name], task, report)
        check_memory(name, models[name], task, settings, device)

    sets = ModelSets(
        models,
        place_beside,
        most=settings.max_loaded,
        loras=LoraFolder(settings.lora_dir),
        check=check,
        kept_lora_bytes=min(settings.lora_cache_mb << 20, free_host_bytes() // 10),
    )
    verdicts = Verdicts(state_folder(settings), device)
    return DiffusersBackend(
        models,
        next(iter(models)),
        batch_tokens=settings.batch_tokens,
        prompt_cache_bytes=settings.prompt_cache_mb << 20,
        tuner=Tuner(
            settings.performance,
            device,
            verdicts=verdicts,
        ),
        sets=sets,
    )


def _keep_bitsandbytes_out(settings: Settings, models: Mapping[str, ModelInfo]) -> None:
    """diffusers and peft import bitsandbytes wherever they find it, and it looks for
    kernels on the Hub: None in its place while nothing can ask for it."""
    import torch

    automatic = settings.quantization is None and settings.memory == "auto"
    asked = {settings.quantization, *(info.quantization for info in models.values())}
    if asked & {"nf4", "int8"} or any(map(_is_packed, models.values())):
        return
    if not (automatic and torch.cuda.is_available()):
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]


def _is_packed(info: ModelInfo) -> bool:
    """Whether a folder on this machine holds quantized weights."""
    # It imports the Hub's client, which takes a while.
    from flux_api.models.hub import is_packed_folder, present_folder

    folders = [present_folder(source) for source in info.sources]
    inner = [path / name for path in folders if path for name in COMPONENTS]
    parts = info.components.values()
    own = [part.path for part in parts if isinstance(part, Folder)]
    return any(map(is_packed_folder, [*inner, *own]))
