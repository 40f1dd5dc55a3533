"""An application that fails where no framework catches it."""

from __future__ import annotations


def application(environ, start_response):
    """Fail, whatever is asked for but health."""
    if environ["PATH_INFO"] == "/healthz":
        start_response("200 OK", [("Content-Length", "0")])
        return []
    raise RuntimeError("as it should")
