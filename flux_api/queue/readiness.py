"""Whether requests are taken at the moment, and if not, why."""

from __future__ import annotations

import logging

from flux_api.errors import Unavailable

logger = logging.getLogger(__name__)


class Readiness:
    """Not ready from the start on, until :meth:`set_ready`; at the end it drains."""

    def __init__(self) -> None:
        self._reason: str | None = "starting"
        self._draining = False

    @property
    def reason(self) -> str | None:
        """Why no request is taken, None when they are."""
        return "shutting down" if self._draining else self._reason

    def say(self, reason: str) -> None:
        """Not ready, because of ``reason``."""
        logger.info("%s", reason)
        self._reason = reason

    def set_ready(self) -> None:
        """Requests are taken from now on."""
        logger.info("ready")
        self._reason = None

    def drain(self) -> None:
        """No request is taken any more, whatever comes. Safe in a signal's handler."""
        self._draining = True

    def check(self) -> None:
        """Unavailable, with the reason, when no request is taken."""
        reason = self.reason
        if reason is not None:
            code = "model_loading" if "load" in reason or reason == "starting" else None
            raise Unavailable(f"Not ready: {reason}.", retry_after=5, code=code)
