"""The numbers of this process at ``/metrics``, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flask import Blueprint, Flask, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flux_api.http.context import Context, get_context
from flux_api.metrics.instruments import REGISTRY

bp = Blueprint("metrics", __name__)


@bp.get("/metrics")
def metrics() -> Response:
    """Counters, histograms, and how it is at the moment."""
    return Response(_text(get_context()), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def register(app: Flask, context: Context) -> None:
    """Give ``app`` the route, or the address of its own that FLUX_METRICS_BIND says:
    there nothing else is answered, no key is needed, and any name may be called."""
    # Apart, where keys guard the API: a scraper need not have one.
    own = context.settings.metrics_address
    if own is None:
        app.register_blueprint(bp)
        return
    host, port, answer = own[0], str(own[1]), app.wsgi_app

    def by_address(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        # The listener's, which gunicorn takes from the socket: no header changes it.
        if (environ["SERVER_NAME"], environ["SERVER_PORT"]) != (host, port):
            return answer(environ, start_response)
        if environ["PATH_INFO"] != "/metrics" or environ["REQUEST_METHOD"] != "GET":
            response = Response("The numbers are at /metrics.\n", 404)
        else:
            content_type = CONTENT_TYPE_PLAIN_0_0_4
            response = Response(_text(context), content_type=content_type)
        return response(environ, start_response)

    app.wsgi_app = by_address  # type: ignore[method-assign]


def _text(context: Context) -> bytes:
    return generate_latest(_Everything(context))


class _Everything(Collector):
    """What was counted, and what is asked now."""

    def __init__(self, context: Context) -> None:
        self._manager = context.manager

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()
        manager = self._manager
        yield _gauge(
            "flux_num_requests_running",
            "Requests of which a picture has been started.",
            manager.requests_running,
        )
        yield _gauge(
            "flux_num_requests_waiting",
            "Requests that wait for their first picture's start.",
            manager.queue_depth,
        )
        yield _gauge(
            "flux_model_ready",
            "1 while requests are taken, else 0.",
            manager.state == "ready",
        )
        yield _gauge(
            "flux_asleep",
            "1 while no weights are on the device; the next request waits for them.",
            manager.asleep is not None,
        )
        yield _gauge(
            "flux_asleep_in_host",
            "1 while they wait in the host's memory, from where they come back fast.",
            manager.asleep == "host",
        )
        # Empty on a CPU, whose memory is the process's own.
        memory = GaugeMetricFamily(
            "flux_gpu_memory_bytes",
            "Memory of the device after the last picture, used by all programs.",
            labels=["kind"],
        )
        for kind, count in (manager.memory or {}).items():
            memory.add_metric([kind], count)
        yield memory


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
