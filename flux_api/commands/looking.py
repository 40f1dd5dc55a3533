"""Whether an API takes requests, asked by whoever started it."""

from __future__ import annotations

import json
from typing import Any

import urllib3

# nginx's certificate is for the name that callers know, and nothing secret is said: a
# warning would only frighten who reads it.
_POOL = urllib3.PoolManager(cert_reqs="CERT_NONE")
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


def look(url: str) -> tuple[str, str]:
    """Why the API at ``url`` takes no requests yet, empty when it does; and its
    model."""
    try:
        status, told = _ask(url)
        if status == 200:
            # Another server on this port is not ours.
            return "", str(told["model"])
        return str(told["reason"]), ""
    except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError):
        return "starting", ""


def failed_update(url: str) -> str:
    """Why the last update of the API at ``url`` failed, empty where none did."""
    try:
        return str(_ask(url)[1].get("failed_update", ""))
    except (urllib3.exceptions.HTTPError, ValueError, AttributeError):
        return ""


def _ask(url: str) -> tuple[int, Any]:
    answer = _POOL.request("GET", f"{url}/readyz", timeout=5.0, retries=False)
    return answer.status, json.loads(answer.data)
