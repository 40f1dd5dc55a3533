"""What a server's ``/metrics`` says, as numbers."""

from __future__ import annotations

import requests
from prometheus_client.parser import text_string_to_metric_families

from flux_api.metrics.instruments import REGISTRY

TYPES = {"counter", "gauge", "histogram"}


def scrape(url, key=None):
    """Every sample by its name and labels, like ``name{a="b"}``."""
    return {
        _name(sample): sample.value
        for family in families(url, key)
        for sample in family.samples
        if not sample.name.startswith("process_")
    }


def forwards():
    """How many forwards of transformers this process has run."""
    return REGISTRY.get_sample_value("flux_batch_size_count")


def families(url, key=None):
    """The metrics with their types and samples."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = requests.get(f"{url}/metrics", headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return list(text_string_to_metric_families(answer.text))


def moved(before, after):
    """By how much each sample is more than before; what stayed is left out, and so are
    times and buckets, which are never the same twice."""
    return {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if value != before.get(name, 0)
        and not name.partition("{")[0].endswith(("_seconds_sum", "_bucket"))
    }


def _name(sample):
    labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
    return f"{sample.name}{{{labels}}}" if labels else sample.name
