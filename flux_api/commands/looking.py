"""Whether an API takes requests, asked by whoever started it."""

from __future__ import annotations

import json

import urllib3

# nginx's certificate is for the name that callers know, and nothing secret is said: a
# warning would only frighten who reads it.
_POOL = urllib3.PoolManager(cert_reqs="CERT_NONE")
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


def look(url: str) -> tuple[str, str]:
    """Why the API at ``url`` takes no requests yet, empty when it does; and its
    model."""
    try:
        answer = _POOL.request("GET", f"{url}/readyz", timeout=5.0, retries=False)
        told = json.loads(answer.data)
        if answer.status == 200:
            # Another server on this port is not ours.
            return "", str(told["model"])
        return str(told["reason"]), ""
    except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError):
        return "starting", ""
