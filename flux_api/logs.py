"""Where this package's log goes."""

from __future__ import annotations

import logging
import sys

from flux_server.log_lines import formatter_for


def configure(level: str = "info") -> None:
    """Let this package log from ``level`` on, and everything else its warnings; to
    standard error unless someone handles the root's records already."""
    logging.getLogger("flux_api").setLevel(level.upper())
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter_for(sys.stderr))
    root.addHandler(handler)
    logging.captureWarnings(True)
