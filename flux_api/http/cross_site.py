"""Web pages that reach for a server on its user's own machine, while it asks no key.

A page of another site cannot read the answer, but what it posts would still cost the
GPU's time; and a name that resolves to 127.0.0.1 makes any page one of this site (DNS
rebinding): RFC 9110, section 7.2.
"""

from __future__ import annotations

from flask import request

from flux_api.errors import CrossSiteRequest, UntrustedHost
from flux_api.http.context import get_context
from flux_server.pages import is_cross_site

_HEALTH = frozenset({"service.healthz", "service.readyz"})
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def check_page() -> None:
    """UntrustedHost, or CrossSiteRequest while there are no API keys."""
    context = get_context()
    # Load balancers ask by an address of their own.
    if request.endpoint in _HEALTH:
        return
    if not context.hosts.trusts(request.headers.get("Host", "")):
        raise UntrustedHost(
            "This server is not known under that name: add it to FLUX_TRUSTED_HOSTS."
        )
    settings = context.settings
    # A page of elsewhere does not know the key, and browsers add none by themselves.
    if settings.api_keys or request.method not in _CHANGING:
        return
    origin = request.headers.get("Origin", "")
    if {"*", origin} & set(settings.cors_origins):
        return
    if is_cross_site(request.headers):
        raise CrossSiteRequest(
            "Pages of other sites may not call this server: add their origin to "
            "FLUX_CORS_ORIGINS."
            if origin != "null"
            else "A page without an origin, such as a local file, may not call this "
            "server: set FLUX_CORS_ORIGINS to *, or set FLUX_API_KEYS."
        )
