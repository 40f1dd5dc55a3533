"""The API, but a cluster without any replica is an outage sooner."""

from __future__ import annotations

from flux_api.cluster import backend
from flux_api import create_app

backend.OUTAGE_SECONDS = 8.0

app = create_app()
