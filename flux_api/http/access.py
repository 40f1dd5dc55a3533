"""Who may call: API keys, and the web pages of other origins."""

from __future__ import annotations

import re

from flask import Response, request

from flux_api.api_keys import ApiKey, holder_of
from flux_api.errors import Unauthorized
from flux_api.http.context import get_context

OPEN_BLUEPRINTS = frozenset({"service", "page", "description", "bfl_samples"})
"""Health, pages, what describes the API, and pictures by a random id: they are served
without a key."""

CALLER = "flux_api.caller"
"""The request's environment says here whose key it came with."""

_BEARER = re.compile(r"bearer +(.+)", re.IGNORECASE)
# Those of this API, of OpenAI's SDKs and of MCP; a fixed list, as an echo of whatever
# a page asks for would let it send any header.
_ALLOWED_HEADER = re.compile(
    r"(?:accept|api-key|authorization|cache-control|content-type|idempotency-key"
    r"|mcp-[a-z0-9-]{1,32}"
    r"|prefer|traceparent|user-agent|x-api-key|x-key|x-job-id|x-request-id|x-client-request-id"
    r"|(?:openai|x-stainless)-[a-z0-9-]{1,64})"
)
_EXPOSED_HEADERS = (
    "X-Request-Id, Retry-After, X-Should-Retry, Location, Preference-Applied, "
    "OpenAI-Processing-Ms, X-Job-Id, "
    "X-Flux-Seed, X-Flux-Mode, X-Flux-Width, X-Flux-Height, X-Flux-Steps, "
    "X-Flux-Native-Width, X-Flux-Native-Height, X-Flux-Warning, "
    "X-Flux-Guidance-Scale, X-Flux-Model, X-Flux-Loras, X-Flux-Delivery, "
    "X-Flux-Performance, X-Flux-Attempts, X-Flux-Queue-Seconds, X-Flux-Run-Seconds, "
    "Idempotent-Replayed"
)
_PREFLIGHT_SECONDS = "600"


def check_key() -> None:
    """Unauthorized unless the request has a key, where keys are set and needed."""
    context = get_context()
    is_admin = request.blueprint == "admin"
    keys = context.settings.admin_keys if is_admin else context.keys()
    # Browsers ask with OPTIONS before they show a key; what is nowhere is 404 to all.
    if not keys or request.method == "OPTIONS" or request.url_rule is None:
        return
    if request.blueprint in OPEN_BLUEPRINTS:
        return
    kind = "admin key" if is_admin else "key"
    request.environ[CALLER] = f"{kind} {_holder(keys)}"


def _holder(keys: tuple[ApiKey, ...]) -> str:
    bearer = _BEARER.fullmatch(request.headers.get("Authorization", "").strip())
    shown = [bearer[1]] if bearer else []
    basic = request.authorization
    if basic is not None and basic.type == "basic":
        # Apps that know no other way put the key in place of the password.
        shown.append(basic.password or "")
    for header in ("Api-Key", "X-Api-Key", "X-Key"):
        # Azure's name for it, a common one, and the hosted API's.
        if api_key := request.headers.get(header):
            shown.append(api_key)
    for text in shown:
        # A header's text is its bytes in Latin-1.
        if found := holder_of(keys, text.strip().encode("latin-1", "replace")):
            return found
    if shown:
        raise Unauthorized("Incorrect API key provided.")
    raise Unauthorized(
        "You did not provide an API key: send 'Authorization: Bearer KEY', 'api-key: "
        "KEY' or 'x-key: KEY', or the key as the password of Basic authentication."
    )


def admit_origin(response: Response) -> Response:
    """Let the pages of FLUX_CORS_ORIGINS read the answer."""
    allowed = get_context().settings.cors_origins
    if not allowed:
        return response
    # For caches, also where this answer names no origin: another's may.
    response.vary.add("Origin")
    origin = request.headers.get("Origin")
    if not origin or not ("*" in allowed or origin in allowed):
        return response
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = "*" if "*" in allowed else origin
    headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS
    if request.method == "OPTIONS":
        headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE, OPTIONS"
        asked = request.headers.get("Access-Control-Request-Headers", "").lower()
        names = [name.strip() for name in asked.split(",")]
        headers["Access-Control-Allow-Headers"] = ", ".join(
            name for name in names if _ALLOWED_HEADER.fullmatch(name)
        )
        headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
    return response
