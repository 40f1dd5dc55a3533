"""Real instances behind the real nginx, and clients that note what came of requests.

Their model makes a picture by sleeping so long for each step: what else this machine
does hardly changes its pace, and as many instances fit a few cores as are wanted.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import requests

from benchmarks.chaos_stack import wait_until
from benchmarks.server import Server, free_address, start
from benchmarks.simulated_fleet import Ask, Outcome, Pace
from flux_api.commands.instances import find_nginx
from flux_api.commands.nginx import Site, whole_text

APP = "tests.support.fake_app:app"
STEP_SECONDS = 0.05
MOST_WAITING = 32
_KEY = "{}-key-of-a-measurement"


class Clients:
    """They ask ``servers`` by nginx at ``url``; ``outcomes`` grows meanwhile."""

    def __init__(self, url: str, servers: Sequence[Server]) -> None:
        self.url, self.servers = url, servers
        self._url = f"{url}/v1/images/generations"
        self.outcomes: list[Outcome] = []
        self._began = 0.0

    def open_load(self, asks: Iterable[Ask]) -> None:
        """Ask without waiting for answers; returns when the last has come."""
        threads = []
        due = self._begin()
        for ask in asks:
            due += ask.after
            time.sleep(max(0.0, due - time.monotonic()))
            threads.append(threading.Thread(target=self.ask, args=(ask,)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def closed_load(self, clients: Iterable[Iterable[Ask]], seconds: float) -> None:
        """Each asks again when it has its answer, until so many ``seconds`` are over;
        returns when the last answers have come."""
        until = self._begin() + seconds

        def go_on(asks: Iterable[Ask]) -> None:
            for ask in itertools.takewhile(lambda _: time.monotonic() < until, asks):
                self.ask(ask)

        threads = [threading.Thread(target=go_on, args=(asks,)) for asks in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def measured_pace(self, caller: str) -> Pace:
        """What a picture takes, by one client that has a card to itself."""
        asks = [Ask(0, caller, steps, 3) for steps in (4, 8, 16) * 3]
        self._begin()
        seconds = [self.ask(ask) / ask.pictures for ask in asks]
        step, picture = np.polyfit([ask.steps for ask in asks], seconds, 1)
        # Nobody was before them: all that they waited is their own.
        start = statistics.median(one.waited for one in self.outcomes)
        return Pace(float(picture), float(step), start)

    def ask(self, ask: Ask) -> float:
        """Have pictures made; gives the seconds from the start of the first to the end
        of the last."""
        body = {"prompt": f"pause={STEP_SECONDS}", "steps": ask.steps}
        body |= {"n": ask.pictures, "size": "64x64", "response_format": "b64_json"}
        bearer = {"Authorization": f"Bearer {_KEY.format(ask.caller)}"}
        answer = requests.post(self._url, json=body, headers=bearer, timeout=600)
        state = {200: "done", 429: "full"}.get(answer.status_code, "lost")
        waited = float(answer.headers.get("X-Flux-Queue-Seconds", 0))
        ended = time.monotonic() - self._began
        self.outcomes.append(Outcome(state, ask.pictures, waited, ended))
        return float(answer.headers.get("X-Flux-Run-Seconds", 0))

    def _begin(self) -> float:
        self.outcomes, self._began = [], time.monotonic()
        return self._began


@contextlib.contextmanager
def serving(count: int, callers: Iterable[str], folder: Path) -> Iterator[Clients]:
    """Clients of ``count`` instances that know ``callers``."""
    keys = ",".join(f"{name}:{_KEY.format(name)}" for name in callers)
    settings = {
        "FLUX_API_KEYS": keys,
        "FLUX_TRUSTED_PROXIES": 1,
        "FLUX_MAX_QUEUE": MOST_WAITING,
    }
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(start(APP, FLUX_INSTANCE=number, **settings))
            for number in range(count)
        ]
        addresses = tuple(server.url.removeprefix("http://") for server in servers)
        url, _ = stack.enter_context(front(addresses, free_address(), folder))
        wait_until(lambda: requests.get(f"{url}/readyz", timeout=5).ok, 30)
        yield Clients(url, servers)


@contextlib.contextmanager
def front(
    instances: tuple[str, ...], files: str, folder: Path
) -> Iterator[tuple[str, psutil.Process]]:
    """nginx in front of these addresses: where it answers, and its master process."""
    program = find_nginx({})
    if program is None:
        raise SystemExit("nginx is missing: make test-deps")
    site = Site(free_address(), instances, files)
    path = folder / "nginx.conf"
    path.write_text(whole_text(site, folder))
    process = subprocess.Popen([program, "-e", "stderr", "-p", folder, "-c", path])
    url = f"http://{site.listen}"
    try:
        wait_until(lambda: _answers(url), 30)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        # Its own: nothing behind it is asked.
        return requests.get(f"{url}/metrics", timeout=5).status_code == 404
    return False
