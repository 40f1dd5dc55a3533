"""Where this package's log goes."""

from __future__ import annotations

import logging
import sys

from flux_server.log_lines import formatter_for


def configure() -> None:
    """Send this package's log to standard error unless someone handles it already."""
    logger = logging.getLogger(__package__)
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter_for(sys.stderr))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
