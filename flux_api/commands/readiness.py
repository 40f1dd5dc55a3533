"""Whether an API takes requests, asked by whoever started it."""

from __future__ import annotations

import json
from typing import NamedTuple

import urllib3

# nginx's certificate is for the name that callers know, and nothing secret is said: a
# warning would only frighten who reads it.
_POOL = urllib3.PoolManager(cert_reqs="CERT_NONE")
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


class Seen(NamedTuple):
    """Why an API takes no requests yet, empty when it does; its model; and why its
    last update failed, empty where none did."""

    reason: str
    model: str = ""
    failed_update: str = ""


def look(url: str) -> Seen:
    """How the API at ``url`` is."""
    try:
        answer = _POOL.request("GET", f"{url}/readyz", timeout=5.0, retries=False)
        told = json.loads(answer.data)
        if answer.status == 200:
            # Another server on this port is not ours.
            return Seen("", str(told["model"]), str(told.get("failed_update", "")))
        return Seen(str(told["reason"]))
    except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError):
        return Seen("starting")
