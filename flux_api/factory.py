"""Puts the parts of the server together."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from flux_api import setting_values
from flux_api.api_keys import watch_keys
from flux_api.blueprints import admin, jobs, metrics, original, page, service
from flux_api.blueprints.a1111 import routes as a1111
from flux_api.blueprints.bfl import routes as bfl
from flux_api.blueprints.description import routes as description
from flux_api.blueprints.mcp import routes as mcp
from flux_api.blueprints.openai import routes as openai
from flux_api.core import Performance
from flux_api.errors import BadSetting
from flux_api.http.allocator import return_large_blocks
from flux_api.http.context import Context
from flux_api.http.hosts import TrustedHosts
from flux_api.http.install import install
from flux_api.http.json_text import Provider
from flux_api.http.kept_answers import KeptAnswers
from flux_api.http.outgoing import (
    content_filter,
    fetch_policy,
    file_server,
    gives_local_urls,
)
from flux_api.images.decoder import CHILDREN, Decoder
from flux_api.images.signing import find_library, open_signer
from flux_api.loading.libraries import prepare_libraries
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.file_stamps import look_at_files
from flux_api.models.hub import Report
from flux_api.models.lora_files import LoraFolder
from flux_api.models.offered import offered_models
from flux_api.models.sources import File, Source
from flux_api.models.toml_file import load_models
from flux_api.net.fetch import Fetcher
from flux_api.net.webhooks import Webhooks
from flux_api.queue.manager import PipelineManager
from flux_api.queue.readiness import Handover
from flux_api.queue.results import ResultStore
from flux_api.queue.shares import Shares, Watchers
from flux_api.queue.tasks import Backend
from flux_api.settings import Settings
from flux_server import log_lines

if TYPE_CHECKING:
    from flux_api.engine.backend import DiffusersBackend
    from flux_api.engine.quality import Quality

logger = logging.getLogger(__name__)

_manager: PipelineManager | None = None
_manager_lock = threading.Lock()


def create_app(
    settings: Settings | None = None, *, manager: PipelineManager | None = None
) -> Flask:
    """The API as a Flask application. Without ``manager`` it shares the process's own;
    loading begins when the server says that the worker has booted (see
    ``gunicorn.conf.py``), else at the first request. BadSetting names a wrong one."""
    settings = settings or Settings.from_env(os.environ)
    log_lines.configure("flux_api", settings.log_level)
    return_large_blocks()
    for sentence in slips(settings, os.environ):
        logger.warning(sentence)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes
    # A picture in Base64 is a field of text: Werkzeug's own bound is half a megabyte.
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.max_upload_bytes
    # A redirect to the tidied path would be built from the caller's Host.
    app.url_map.merge_slashes = False
    app.json = Provider(app)
    context = _make_context(settings, manager)
    app.extensions["flux_api"] = context
    install(app)
    _register_blueprints(app, settings)
    metrics.register(app, context)
    if hops := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=0, x_prefix=0
        )
    return app


def slips(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each thing in ``environ`` that stops no start, and is hardly what
    was meant; ``settings`` are what was read of it."""
    yield from setting_values.unknown(Settings, environ)
    if settings.trusted_proxies and gives_local_urls(settings):
        yield (
            "FILE_SERVER is an address of this machine: callers behind the proxy need "
            "FILE_SERVER_PUBLIC_URL, the address under which they reach it"
        )


def check_start(settings: Settings) -> None:
    """BadSetting names what would stop a server with ``settings`` at its start."""
    check_machine(settings)
    # All that a start puts together but the model, so that no check is forgotten here.
    make_backend = functools.partial(_make_backend, settings, None)
    _make_context(settings, new_manager(settings, make_backend, lambda: None))


def _make_context(settings: Settings, manager: PipelineManager | None) -> Context:
    models = offered_models(settings)
    # The path of a file shows nowhere: it is known by its set's name.
    named = settings.model_copy(update={"model": next(iter(models))})
    results = ResultStore(settings.results_mb << 20)
    fetcher = Fetcher(fetch_policy(settings))
    signer = open_signer(
        settings.c2pa_cert, settings.c2pa_key, settings.c2pa_timestamp_url
    )
    return Context(
        settings=named,
        keys=watch_keys(settings.api_keys, settings.api_keys_file),
        manager=manager or get_manager(settings, models[named.model].everything),
        models=models,
        known=load_models(settings.model_info, MODEL_INFO),
        loras=LoraFolder(settings.lora_dir),
        hosts=TrustedHosts(settings.trusted_hosts),
        fetcher=fetcher,
        decoder=Decoder(settings.decoded_mb << 20, find_library() if signer else None),
        signer=signer,
        # One child is always left for others, whatever a caller's pictures cost.
        decodes=Shares(CHILDREN, CHILDREN - 1, seconds=30, purpose="are decoded"),
        fetches=Shares(16, 4, seconds=5, purpose="are fetched"),
        file_server=file_server(settings),
        watchers=Watchers(settings.max_watchers),
        results=results,
        kept_answers=KeptAnswers(results),
        webhooks=Webhooks(
            fetcher, settings.webhook_hosts, settings.state_folder / "webhooks"
        ),
    )


def _register_blueprints(app: Flask, settings: Settings) -> None:
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


def get_manager(
    settings: Settings, sources: Sequence[Source | File]
) -> PipelineManager:
    """The process's one pipeline manager, made at the first call; loading that failed
    is tried again when the files of ``sources`` change."""
    global _manager
    with _manager_lock:
        if _manager is None:
            check_machine(settings)
            manager = new_manager(
                settings,
                lambda: _make_backend(settings, manager.handover),
                lambda: look_at_files(sources, settings.model_info),
            )
            _manager = manager
        return _manager


def new_manager(
    settings: Settings,
    make_backend: Callable[[], Backend],
    look_at_files: Callable[[], object],
) -> PipelineManager:
    """One that has its pictures made by ``make_backend`` within the bounds of
    ``settings``; for ``look_at_files`` see the class."""
    filtered = content_filter(settings)
    # Replicas of a cluster go to sleep by themselves.
    idle = settings.idle_unload if settings.backend == "local" else 0
    return PipelineManager(
        lambda: filtered(make_backend()),
        look_at_files=look_at_files,
        max_queue=settings.max_queue,
        idle_seconds=idle * 60,
        max_per_caller=settings.max_per_caller,
        step_timeout=settings.step_timeout,
    )


def check_machine(settings: Settings) -> None:
    """BadSetting where this machine cannot quantize or offload as ``settings``, or one
    of the sets, say; torch is imported only where they say so. Where others make the
    pictures, where Ray is missing."""
    if settings.backend == "ray":
        if importlib.util.find_spec("ray") is None:
            message = "Ray is not installed: pip install -r requirements-ray.txt"
            raise BadSetting(f"FLUX_BACKEND=ray: {message}")
        return
    wanted = {(settings.quantization or "none", settings.offload or "none")}
    for info in offered_models(settings).values():
        quantization = info.quantization or settings.quantization or "none"
        wanted.add((quantization, info.offload or settings.offload or "none"))
    for quantization, offload in wanted - {("none", "none")}:
        from flux_api.loading.placement import check_placement, choose_device

        check_placement(quantization, offload, choose_device())


def measure_quality(
    settings: Settings, levels: Sequence[Performance], report: Report
) -> dict[Performance, Quality]:
    """Draw the default set's quality pictures with each of ``levels``, and keep the
    verdicts. FluxError where the set cannot be loaded."""
    log_lines.configure("flux_api", settings.log_level)
    check_machine(settings)
    told = settings.model_copy(update={"performance": "max"})
    return _local_backend(told, None).judge(levels, report)


def manager_of_replica(environ: Mapping[str, str]) -> PipelineManager:
    """The manager of a process of the cluster, under those settings of whoever deployed
    it that tell how pictures are made: it makes them itself."""
    # Libraries look for theirs, such as HF_HOME, in the process's own.
    os.environ.update(environ)
    settings = Settings.from_env(environ)
    log_lines.configure("flux_api", settings.log_level)
    models = offered_models(settings)
    return get_manager(settings, models[next(iter(models))].everything)


def _make_backend(settings: Settings, handover: Handover | None) -> Backend:
    if settings.backend == "local":
        return _local_backend(settings, handover)
    # An optional installation, imported where it is used alone.
    from flux_api.cluster.backend import RayBackend

    return RayBackend(offered_models(settings))


def _local_backend(settings: Settings, handover: Handover | None) -> DiffusersBackend:
    models = offered_models(settings)
    prepare_libraries(settings, models)
    # Imports torch and diffusers: seconds, spent in the loading thread.
    from flux_api.engine.assembly import make_backend

    return make_backend(settings, models, handover)
