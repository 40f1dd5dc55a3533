"""A request that this instance cannot take, or not alone, handed on to another by the
nginx in front.

nginx names the next place to ask in ``X-Flux-Next``; where there is none left, the
refusal goes to the caller as it is. nginx's own way, ``proxy_intercept_errors``, would
also replace the bodies of refusals that are final.
"""

from __future__ import annotations

import re

from flask import Response, request

# What nginx itself wrote, and no other place that a caller might name.
_PLACE = re.compile(r"@next[0-9]{1,3}")
_ELSEWHERE_MAYBE = (429, 503)


def hand_on(response: Response) -> Response:
    """Have nginx ask the next instance where this one is full, loads or stops: it sends
    the same request there and drops this answer."""
    return ask_next(response) if response.status_code in _ELSEWHERE_MAYBE else response


def ask_next(response: Response) -> Response:
    """Have nginx ask the next instance as well: the caller gets what that one answers,
    and ``response`` where there is none."""
    place = request.headers.get("X-Flux-Next", "")
    if _PLACE.fullmatch(place):
        response.headers["X-Accel-Redirect"] = place
    return response
