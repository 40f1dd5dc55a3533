"""The file server's numbers at ``/metrics``, in Prometheus' text format."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from flask import Blueprint, Flask, Response, current_app, request
from prometheus_client import (
    CollectorRegistry,
    Counter,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .errors import FileServerError, StorageFull
from .storage import Storage, Usage
from .views import context, require_token

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
UPLOADS = Counter("flux_files_uploads", "Pictures that were stored.", registry=REGISTRY)
REFUSALS = Counter(
    "flux_files_refusals",
    "Uploads that were not stored, by the answer's status.",
    ["status"],
    registry=REGISTRY,
)
# Those that may come are there from the start: what has not happened is 0, not missing.
for _status in (400, 401, 403, 408, 413, 415, 500, 503, 507):
    REFUSALS.labels(str(_status))
SHARE = 0.01
"""Of all time, what counting the files of a storage may take."""

bp = Blueprint("metrics", __name__)


@bp.get("/metrics")
def metrics() -> Response:
    """The numbers, for whoever has the bearer token."""
    require_token(context().bearer_token())
    text = generate_latest(current_app.extensions["metrics"])
    return Response(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)


def install(app: Flask, storage: Storage) -> None:
    """Give ``app`` the route, and have it count."""
    app.extensions["metrics"] = _Everything(storage)
    app.register_blueprint(bp)
    app.after_request(_note_upload)


def _note_upload(response: Response) -> Response:
    """Count an upload, stored or not."""
    if request.endpoint == "files.upload":
        if response.status_code < 400:
            UPLOADS.inc()
        else:
            REFUSALS.labels(str(response.status_code)).inc()
    return response


class _Everything(Collector):
    """What was counted, and what is asked now."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._usage: Usage | None = None
        self._until = 0.0

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()
        ready = True
        try:
            try:
                self._storage.check()
            except StorageFull:
                # How full it is can still be told.
                ready = False
            usage = self._measure()
        except FileServerError:
            yield _gauge("flux_files_ready", _READY, 0)
            return
        yield _gauge("flux_files_ready", _READY, ready)
        yield _gauge("flux_files_stored", "Pictures that are stored.", usage.files)
        yield _gauge("flux_files_stored_bytes", "Bytes of them.", usage.bytes)
        if usage.free is not None:
            text = "Bytes that the disk has free."
            yield _gauge("flux_files_free_bytes", text, usage.free)

    def _measure(self) -> Usage:
        """The newest count: a storage of many files is asked less often."""
        with self._lock:
            began = time.monotonic()
            # By the time that it took: a bucket of millions is listed for minutes.
            if self._usage is None or began >= self._until:
                self._usage = self._storage.usage()
                now = time.monotonic()
                self._until = now + (now - began) / SHARE
            return self._usage


_READY = "1 while pictures could be stored, else 0."


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
