"""``X-Request-Id``: by which name a request is known in logs and to its caller."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# It goes into the log and into the answer's headers as it came.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id_of(environ: Mapping[str, Any]) -> str | None:
    """The caller's own id of a request, None where there is none that may be used."""
    given = environ.get("HTTP_X_REQUEST_ID", "")
    return given if _REQUEST_ID.fullmatch(given) else None
