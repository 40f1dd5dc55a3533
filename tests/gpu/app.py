"""The server on the simulated GPU, for gunicorn: ``tests.gpu.app:app``."""

from __future__ import annotations

from tests.gpu.simulated import switch_on

switch_on()

from wsgi import app  # noqa: E402, F401  (torch comes after the device)
