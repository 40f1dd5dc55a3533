"""The API for a WSGI server: ``gunicorn -c gunicorn.conf.py wsgi:app``."""

from __future__ import annotations

import sys

from flux_api import create_app
from flux_api.errors import BadSetting

try:
    app = create_app()
except BadSetting as error:
    print(f"flux_api: {error}", file=sys.stderr, flush=True)
    # gunicorn's own status for a worker that cannot boot: it tries no other.
    sys.exit(3)
