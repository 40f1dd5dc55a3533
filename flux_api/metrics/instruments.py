"""The counters and histograms of this process, for Prometheus.

No label holds a prompt, a caller or an id: each is a word out of a short list. What is
so at the moment (waiting, running, memory) is asked when it is read, see
``blueprints/metrics.py``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

# A second series for each, which no query here needs.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""From a step of a small model to what FLUX_REQUEST_TIMEOUT allows."""

Stage = Literal[
    "load", "encode", "denoise", "decode", "encode_file", "sign", "upload", "fetch"
]
Cache = Literal["answers", "loras", "models", "pictures", "prompts"]

REQUESTS = Counter(
    "flux_requests",
    "Requests for pictures that have ended.",
    ["route", "mode", "model", "outcome"],
    registry=REGISTRY,
)
LATENCY = Histogram(
    "flux_request_latency_seconds",
    "From a request's first byte until it ended, however it did.",
    buckets=SECONDS,
    registry=REGISTRY,
)
QUEUE_TIME = Histogram(
    "flux_queue_time_seconds",
    "How long requests waited for the start of their first picture.",
    buckets=SECONDS,
    registry=REGISTRY,
)
STEP = Histogram(
    "flux_denoise_step_seconds",
    "A denoising step of one picture, the turns of others included.",
    buckets=SECONDS,
    registry=REGISTRY,
)
BATCH = Histogram(
    "flux_batch_size",
    "How many pictures shared a forward of the transformer.",
    buckets=(1, 2, 3, 4, 6, 8, 12, 16),
    registry=REGISTRY,
)
IMAGES = Counter("flux_images", "Pictures that were made.", registry=REGISTRY)
CACHE_HITS = Counter(
    "flux_cache_hits", "Found where it was kept.", ["cache"], registry=REGISTRY
)
CACHE_MISSES = Counter(
    "flux_cache_misses", "Not kept, and made anew.", ["cache"], registry=REGISTRY
)
_STAGE = Histogram(
    "flux_stage_seconds",
    "What the time of a picture goes to.",
    ["stage"],
    buckets=SECONDS,
    registry=REGISTRY,
)

# Each is there from the start: what has not happened yet is 0, not missing.
for _stage in get_args(Stage):
    _STAGE.labels(_stage)
for _cache in get_args(Cache):
    CACHE_HITS.labels(_cache)
    CACHE_MISSES.labels(_cache)


def measured(stage: Stage) -> AbstractContextManager[object]:
    """The block counts as one ``stage``, also where it raises."""
    return _STAGE.labels(stage).time()


def note_lookup(cache: Cache, *, found: bool) -> None:
    """Somebody looked for something in ``cache``."""
    (CACHE_HITS if found else CACHE_MISSES).labels(cache).inc()
