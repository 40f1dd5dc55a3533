"""``traceparent``: which trace of the caller's a request is part of. It is logged and
goes along to other servers as it came; spans are the business of proxies and callers.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# The version ff is forbidden, and so are ids of nothing but zeros.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


def traceparent_of(environ: Mapping[str, Any]) -> str | None:
    """The header of a request, None where it is none that others would take."""
    given = environ.get("HTTP_TRACEPARENT", "")
    return given if _TRACEPARENT.fullmatch(given) else None
