"""The API, but a cluster without any replica, or one that does not answer, is an outage
sooner."""

from __future__ import annotations

from flux_api import create_app
from flux_api.cluster import backend

backend.OUTAGE_SECONDS = 8.0
backend._ANSWER_SECONDS = 2

app = create_app()
