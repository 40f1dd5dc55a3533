"""``python -m benchmarks.serving``: latency, fairness, a crowd, and shared forwards.

Everything runs over HTTP against a server of its own, with the embedded model or the
set in FLUX_MODEL (on a GPU with random weights: see ``benchmarks/random_weights.py``).
Quiet the machine first; the ratios count, not the seconds.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
import torch
from requests.adapters import HTTPAdapter

from benchmarks.server import start

CROWD = 100
QUEUE = 8


def main() -> None:
    """Print one line a measurement."""
    with start() as server:
        one = one_picture(server.url)
        print(f"one picture, default settings          {one:8.3f} s (median of 5)")
        waited, behind_lock, p99 = fairness(server.url, 1)
        print(f"one small picture beside another's ten {waited:8.3f} s")
        print(f"  the same behind a plain lock         {behind_lock:8.3f} s")
        print(f"  ratio                                {waited / behind_lock:8.3f}")
        print(f"/healthz meanwhile, 99th percentile    {p99 * 1000:8.1f} ms")
    with start(FLUX_MAX_QUEUE=QUEUE) as server:
        made, refused, slowest = crowd(server.url)
        print(f"{CROWD} clients at once, a queue of {QUEUE}     {made:8} made")
        print(f"  the others                           {refused:8} refused with 429")
        print(f"  /healthz meanwhile, 99th percentile  {slowest * 1000:8.1f} ms")
    # On a GPU the default budget is what counts; on a CPU it is 0.
    budget = {} if torch.accelerator.is_available() else {"FLUX_BATCH_TOKENS": 100_000}
    with start(**budget) as server:
        shared = burst(server.url)
        waited, behind_lock, _ = fairness(server.url, 2)
    with start(FLUX_BATCH_TOKENS=0) as server:
        single = burst(server.url)
    print(f"six pictures at once, one at a time    {single:8.3f} s")
    print(f"six pictures at once, shared forwards  {shared:8.3f} s")
    print(f"  ratio                                {shared / single:8.3f}")
    print(f"one small beside 20 that share forwards{waited:8.3f} s")
    print(f"  the same behind a plain lock         {behind_lock:8.3f} s")
    print(f"  ratio                                {waited / behind_lock:8.3f}")


def one_picture(url: str) -> float:
    """Median seconds of a request with default settings."""
    draw(url, {"prompt": "a red heart"})
    return statistics.median(draw(url, {"prompt": "a red heart"}) for _ in range(5))


def fairness(url: str, requests_of_ten: int) -> tuple[float, float, float]:
    """Seconds of a small request that comes while another caller's pictures run, ten a
    request, seconds until those were done, and the 99th percentile of /healthz
    meanwhile."""
    ten = {"prompt": "a dog", "n": 10, "steps": 40}
    began = time.monotonic()
    stop = threading.Event()
    with ThreadPoolExecutor(1 + requests_of_ten) as pool:
        big = [pool.submit(draw, url, ten, "127.0.0.2") for _ in range(requests_of_ten)]
        healths = pool.submit(poll_health, url, stop)
        time.sleep(1.0)
        asked = time.monotonic()
        waited = draw(url, {"prompt": "a cat", "steps": 4, "size": "64x64"})
        for request in big:
            request.result()
        behind_lock = time.monotonic() - asked
        stop.set()
        seconds = sorted(healths.result())
    assert behind_lock < time.monotonic() - began
    return waited, behind_lock, seconds[int(len(seconds) * 0.99)]


def crowd(url: str) -> tuple[int, int, float]:
    """How many of CROWD requests at once were made and how many got 429 (no other
    status is expected), and the 99th percentile of /healthz meanwhile, while a long
    run blocks the backend."""
    stop = threading.Event()
    with ThreadPoolExecutor(CROWD + 2) as pool:
        body = {"prompt": "a dog", "steps": 200}
        blocking = pool.submit(draw, url, body, "127.0.0.2")
        healths = pool.submit(poll_health, url, stop)
        time.sleep(0.5)
        one = {"prompt": "a cat", "steps": 4, "size": "64x64"}
        statuses = Counter(pool.map(lambda _: ask(url, one), range(CROWD)))
        blocking.result()
        stop.set()
        seconds = sorted(healths.result())
    assert set(statuses) <= {200, 429}, statuses
    return statuses[200], statuses[429], seconds[int(len(seconds) * 0.99)]


def ask(url: str, body: dict[str, Any]) -> int:
    """The status of one generation."""
    path = f"{url}/v1/images/generations"
    return requests.post(path, json=body, timeout=600).status_code


def burst(url: str) -> float:
    """Seconds for six different pictures asked for at once."""
    draw(url, {"prompt": "warm up", "size": "512x512"})
    asked = [
        {"prompt": f"a cat {i}", "seed": i, "steps": steps, "size": "512x512"}
        for i, steps in enumerate((24, 30, 20, 26, 22, 28))
    ]
    began = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda one: draw(url, one), asked))
    return time.monotonic() - began


def poll_health(url: str, stop: threading.Event) -> list[float]:
    """Seconds of /healthz, asked 50 times a second until ``stop``."""
    seconds = []
    with requests.Session() as session:
        while not stop.wait(0.02):
            began = time.monotonic()
            session.get(f"{url}/healthz", timeout=60).raise_for_status()
            seconds.append(time.monotonic() - began)
    return seconds


def draw(url: str, body: dict[str, Any], source: str = "127.0.0.1") -> float:
    """Seconds of one generation, asked for from the loopback address ``source``."""
    began = time.monotonic()
    with requests.Session() as session:
        session.mount("http://", From(source))
        answer = session.post(f"{url}/v1/images/generations", json=body, timeout=600)
        answer.raise_for_status()
    return time.monotonic() - began


class From(HTTPAdapter):
    """Connections that come from one local address: a caller of its own."""

    def __init__(self, source: str) -> None:
        self._source = source
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, source_address=(self._source, 0), **kwargs)


if __name__ == "__main__":
    main()
