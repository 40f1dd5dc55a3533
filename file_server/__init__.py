"""The image file server: keeps pictures and hands them out under unguessable names."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from socket import socket

from flask import Flask
from werkzeug import formparser
from werkzeug.middleware.proxy_fix import ProxyFix

from flux_server import log_lines
from flux_server.environment import near_misses
from flux_server.multipart import LenientDecoder

from . import hooks, metrics, openapi, views
from .cleaner import Cleaner
from .config import DEFAULT_TOKEN, Bucket, Settings
from .errors import SettingsError
from .local import LocalStorage
from .storage import Storage

__all__ = ["Settings", "SettingsError", "create_app", "open_storage", "warn_if_open"]

logger = logging.getLogger(__name__)

RECIPE_BYTES = 500_000
FORM_BYTES = 64 * 1024 + RECIPE_BYTES
"""What the multipart form around a file, with a recipe in it, may add to it."""

# There is no other place where Flask's reader of forms could be given one.
formparser.MultipartDecoder = LenientDecoder  # type: ignore[attr-defined]


def create_app(
    settings: Settings | None = None, *, storage: Storage | None = None
) -> Flask:
    """Return the WSGI application; a wrong setting raises ``SettingsError``."""
    log_lines.configure("file_server")
    settings = settings or Settings.from_env(os.environ)
    for sentence in near_misses(os.environ, Settings.variables(), "FILES_"):
        logger.warning(sentence)
    tokens = _watch_tokens(settings)
    storage = storage or open_storage(settings)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload + FORM_BYTES
    app.config["MAX_FORM_PARTS"] = 20
    app.config["MAX_FORM_MEMORY_SIZE"] = RECIPE_BYTES
    # A redirect to the tidied path would be built from the caller's Host.
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["file_server"] = views.Context(settings, storage, **tokens)
    app.register_blueprint(views.bp)
    app.register_blueprint(openapi.bp)
    metrics.install(app, storage)
    if settings.trusted_proxies:
        count = settings.trusted_proxies
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=count, x_proto=count, x_host=0, x_port=0, x_prefix=0
        )
    hooks.install(app, settings.body_timeout)
    if settings.ttl:
        cleaner = Cleaner(storage, settings.ttl)
        cleaner.ensure_running()
        app.before_request(cleaner.ensure_running)
    return app


def _watch_tokens(settings: Settings) -> dict[str, Callable[[], str]]:
    tokens = {
        name: views.watch_token(name.upper(), token, path)
        for name, token, path in (
            ("bearer_token", settings.bearer_token, settings.bearer_token_file),
            ("upload_token", settings.upload_token, settings.upload_token_file),
        )
    }
    if tokens["bearer_token"]() == DEFAULT_TOKEN:
        logger.warning(
            "BEARER_TOKEN is the default, %s, which everybody knows: "
            "set BEARER_TOKEN before others can reach this server.",
            DEFAULT_TOKEN,
        )
    return tokens


def warn_if_open(app: Flask, sockets: Iterable[socket]) -> None:
    """Say so when others can reach these sockets and store whatever they like."""
    context: views.Context = app.extensions["file_server"]
    if context.upload_token():
        return
    for listener in sockets:
        host = listener.getsockname()[0]
        if not ip_address(host.partition("%")[0]).is_loopback:
            logger.warning(
                "anybody who reaches this port can store pictures: set UPLOAD_TOKEN or "
                "bind to 127.0.0.1"
            )
            return


def open_storage(settings: Settings) -> Storage:
    """Return the storage that STORAGE_URL names, made ready for uploads."""
    place = settings.storage
    if isinstance(place, Bucket):
        try:
            # Imported here: boto3 is an optional installation.
            from .s3 import S3Storage
        except ImportError as error:
            reason = f"STORAGE_URL='s3://{place.name}/...': {error}"
            raise SettingsError(
                f"{reason}; pip install -r requirements-s3.txt"
            ) from None
        return S3Storage(
            place.name, place.prefix, max_total=settings.max_total, ttl=settings.ttl
        )
    local = LocalStorage(
        place.path, max_total=settings.max_total, min_free=settings.min_free
    )
    try:
        local.prepare()
    except OSError as error:
        reason = f"STORAGE_URL={place.path.as_uri()!r}: {error.strerror}"
        raise SettingsError(reason) from None
    return local
