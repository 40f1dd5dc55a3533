"""``python -m benchmarks.throughput``: pictures a second at 1, 4, 16 and 64 clients
over the bare pipeline, one picture a forward, shared, and with
``FLUX_PERFORMANCE=speed``; how full the forwards are."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import requests
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.bare import BarePipeline
from benchmarks.report import Report, read_options
from benchmarks.server import start

CLIENTS = (1, 4, 16, 64)
WAYS: dict[str, dict[str, object]] = {
    "one a forward": {"FLUX_BATCH_TOKENS": 0},
    "shared forwards": {"FLUX_BATCH_TOKENS": 100_000},
    "speed": {"FLUX_PERFORMANCE": "speed"},
}


def main() -> None:
    """Print one line a measurement."""
    options = read_options(__doc__, pictures=64)
    pictures, report = options.pictures, Report("throughput", options.results)
    bare = BarePipeline()
    bare.draw("warm up", 0)
    serial = _rate(lambda seed: bare.draw(f"a red heart {seed}", seed), pictures, 1)
    report.add("bare pipeline, serial", serial, "pictures/s")
    for way, settings in WAYS.items():
        with start(FLUX_MAX_QUEUE=100, **settings) as server:
            for clients in CLIENTS:
                # What is compiled for the first shared forward is no throughput.
                few = min(clients, 4)
                _rate(lambda seed, url=server.url: _ask(url, seed), few, few)
                before = _forwards(server.url)
                rate = _rate(
                    lambda seed, url=server.url: _ask(url, seed), pictures, clients
                )
                forwards, drawn = (
                    now - then
                    for now, then in zip(_forwards(server.url), before, strict=True)
                )
                report.add(f"{way}, {clients} clients: over serial", rate / serial, "x")
                report.add(
                    f"{way}, {clients} clients: in a forward", drawn / forwards, ""
                )
    report.write()


def _rate(draw: object, pictures: int, clients: int) -> float:
    """Pictures a second of ``clients`` that draw ``pictures`` in all."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(draw, range(pictures)))  # type: ignore[arg-type]
    return pictures / (time.perf_counter() - began)


def _ask(url: str, seed: int) -> None:
    form = {"prompt": f"a red heart {seed}", "seed": seed}
    requests.post(f"{url}/process/raw", data=form, timeout=600).raise_for_status()


def _forwards(url: str) -> tuple[float, float]:
    """How many forwards there were, and how many pictures in them."""
    text = requests.get(f"{url}/metrics", timeout=60).text
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return found["flux_batch_size_count"], found["flux_batch_size_sum"]


if __name__ == "__main__":
    main()
