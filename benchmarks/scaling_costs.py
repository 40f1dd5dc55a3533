"""CPU seconds that a picture takes in each part but the model: they do not depend on
what else the machine does."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from benchmarks.encoding import SIDE, picture
from benchmarks.scaling_stack import front, serving
from benchmarks.server import Server, free_address, start
from benchmarks.simulated_fleet import Ask
from flux_api.images.codec import encode_image

_TOKEN = "a-token-of-a-measurement"


@dataclass(frozen=True)
class Costs:
    """CPU seconds of a picture of 1024x1024, which has so many ``bytes`` as PNG."""

    bytes: int
    request: float
    """In the API's process: a request through HTTP, queue and back."""
    encode: float
    """In the same: the PNG."""
    store: float
    """In the file server's process: the picture comes in."""
    give: float
    """In the same: it goes out, where nginx does not read the folder itself."""
    carry: float
    """In nginx: it goes through, from another server."""


def measured_costs(rounds: int) -> Costs:
    """Of so many pictures each."""
    image = picture(SIDE)
    data = encode_image(image).data
    began = time.process_time()
    for _ in range(rounds):
        encode_image(image)
    encode = (time.process_time() - began) / rounds
    with tempfile.TemporaryDirectory() as folder:
        request = _request_cost(Path(folder), rounds)
        store, give, carry = _file_costs(Path(folder), data, rounds)
    return Costs(len(data), request, encode, store, give, carry)


def _request_cost(folder: Path, rounds: int) -> float:
    with serving(1, ["one"], folder) as clients:
        process = psutil.Process(clients.servers[0].worker())
        ask = Ask(0, "one", 1)
        return _cpu(process, rounds, lambda: clients.ask(ask))


def _file_costs(folder: Path, data: bytes, rounds: int) -> tuple[float, float, float]:
    settings = {"STORAGE_URL": f"file://{folder}/images", "UPLOAD_TOKEN": _TOKEN}
    settings |= {"FILES_TRUSTED_PROXIES": "1"}
    with start("file_server:create_app()", **settings) as files:
        worker = psutil.Process(files.worker())
        urls: list[str] = []
        bearer = {"Authorization": f"Bearer {_TOKEN}"}

        def store() -> None:
            form = {"file": ("picture.png", data, "image/png")}
            answer = requests.post(f"{files.url}/upload", files=form, headers=bearer)
            answer.raise_for_status()
            urls.append(answer.json()["url"])

        stored = _cpu(worker, rounds, store)
        path = urls[0].removeprefix(files.url)
        given, carried = _way_out(folder, files, path, rounds)
    return stored, given, carried


def _way_out(
    folder: Path, files: Server, path: str, rounds: int
) -> tuple[float, float]:
    address = files.url.removeprefix("http://")
    with front((free_address(),), address, folder) as (url, nginx):
        worker = psutil.Process(files.worker())

        def fetch() -> None:
            requests.get(url + path, timeout=60).raise_for_status()

        before = _spent(*nginx.children())
        given = _cpu(worker, rounds, fetch)
        return given, (_spent(*nginx.children()) - before) / rounds


def _cpu(process: psutil.Process, rounds: int, work: Callable[[], object]) -> float:
    before = _spent(process)
    for _ in range(rounds):
        work()
    return (_spent(process) - before) / rounds


def _spent(*processes: psutil.Process) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)
