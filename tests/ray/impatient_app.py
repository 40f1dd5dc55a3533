"""The API, but a cluster without any replica is an outage sooner."""

from __future__ import annotations

from flux_api import create_app
from flux_api.cluster import backend

backend.OUTAGE_SECONDS = 8.0

app = create_app()
