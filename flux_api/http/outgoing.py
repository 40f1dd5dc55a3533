"""Whom a server opens connections to, by its settings."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from flux_api.api_keys import is_loopback, watch_token
from flux_api.errors import BadSetting
from flux_api.net.content_filter import open_filter
from flux_api.net.fetch import FetchPolicy
from flux_api.net.file_server import FileServer
from flux_api.net.urls import Url, UrlError, parse_url
from flux_api.queue.filtering import FilteredBackend
from flux_api.queue.tasks import Backend
from flux_api.settings import Settings


def fetch_policy(settings: Settings) -> FetchPolicy:
    """What ``input_image_url`` may reach under ``settings``; BadSetting names an
    address that no caller's URL could have."""
    # By either name: callers send back the URLs that they were given.
    own = {
        "FILE_SERVER": settings.file_server,
        "FILE_SERVER_PUBLIC_URL": settings.file_server_public_url,
    }
    return FetchPolicy(
        own_origins=tuple(_parse(name, base) for name, base in own.items() if base),
        allowed_networks=settings.allow_private_nets,
        allow_private=settings.allow_private_urls,
        max_bytes=settings.max_upload_bytes,
    )


def _parse(name: str, base: str) -> Url:
    try:
        return parse_url(base)
    except UrlError as error:
        raise BadSetting(f"{name}={base[:200]!r}: it {error}") from None


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


def gives_local_urls(settings: Settings) -> bool:
    """Whether callers are given URLs that only this machine can open, and no
    FILE_SERVER_PUBLIC_URL says otherwise."""
    base = settings.file_server
    if settings.file_server_public_url is not None:
        return False
    return base is not None and is_loopback((urlsplit(base).hostname or "",))


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
