"""The API for a WSGI server: ``gunicorn -c gunicorn.conf.py wsgi:app``."""

from __future__ import annotations

from flux_api import create_app

app = create_app()
