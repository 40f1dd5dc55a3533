"""``python -m benchmarks.soak SECONDS``: mixed load; memory and descriptors stay flat.

Four clients at once send every kind of request there is, good, bad, cancelled and cut
off. Exit status 1 when, after a warm-up of a sixth of the time, the worker's resident
memory grows by more than 50 MiB or its descriptors by more than 8.
"""

from __future__ import annotations

import base64
import io
import random
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import requests
from PIL import Image

from benchmarks.server import Server, start

CLIENTS = 4
MOST_GROWTH_MIB = 50.0
MOST_DESCRIPTORS = 8
SMALL = {"size": "64x64", "steps": 2}


def main(seconds: float) -> int:
    """Load a server for ``seconds``; 0 when it stayed flat."""
    counts: Counter[str] = Counter()
    with start(FLUX_MAX_QUEUE=8, OMP_NUM_THREADS=1) as server:
        stop = threading.Event()
        clients = [
            threading.Thread(target=client, args=(server.url, number, stop, counts))
            for number in range(CLIENTS)
        ]
        for thread in clients:
            thread.start()
        flat = watch(server, seconds)
        stop.set()
        for thread in clients:
            thread.join()
        ready = requests.get(f"{server.url}/readyz", timeout=10).ok
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    unexpected = {name for name in counts if " 5" in name and not name.endswith("503")}
    if unexpected:
        print(f"unexpected answers: {sorted(unexpected)}")
    return 0 if flat and ready and not unexpected else 1


def watch(server: Server, seconds: float) -> bool:
    """Print memory, descriptors and threads ten times; whether they stayed flat."""
    time.sleep(seconds / 6)
    first = server.resident_mib(), server.descriptors()
    print(f"{'s':>6} {'MiB':>8} {'descriptors':>12} {'threads':>8}")
    began, least = time.monotonic(), first[1]
    for _ in range(10):
        time.sleep(seconds * 5 / 60)
        memory, descriptors = server.resident_mib(), server.descriptors()
        spent = time.monotonic() - began
        row = f"{spent:6.0f} {memory:8.1f} {descriptors:12} {server.threads():8}"
        print(row, flush=True)
        least = min(least, descriptors)
    growth = memory - first[0]
    most = MOST_GROWTH_MIB
    print(f"growth after the warm-up: {growth:.1f} MiB (at most {most:.0f})")
    return growth <= MOST_GROWTH_MIB and least <= first[1] + MOST_DESCRIPTORS


def client(url: str, number: int, stop: threading.Event, counts: Counter[str]) -> None:
    """Send requests of random kinds until ``stop``."""
    chance = random.Random(number)
    while not stop.is_set():
        kind = chance.choice(KINDS)
        try:
            status: object = kind(url)
        except requests.RequestException as error:
            status = type(error).__name__
        counts[f"{kind.__name__} {status}"] += 1


def generate(url: str) -> int:
    """A picture by OpenAI's API."""
    body = {"prompt": "a cat", **SMALL}
    return post(url, "/v1/images/generations", json=body)


def several(url: str) -> int:
    """Three pictures of one request."""
    body = {"prompt": "a cat", "n": 3, **SMALL}
    return post(url, "/v1/images/generations", json=body)


def edit(url: str) -> int:
    """An edit by the original API."""
    form = {"prompt": "mirror it", "num_inference_steps": 2}
    return post(url, "/process", data=form, files={"input_file": PICTURE})


def variation(url: str) -> int:
    """A variation as raw bytes."""
    form = {"num_inference_steps": 2, "width": 256, "height": 128}
    return post(url, "/process/raw", data=form, files={"input_file": PICTURE})


def data_url(url: str) -> int:
    """An edit whose picture comes in JSON."""
    text = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    body = {"prompt": "blur it", "image": text, **SMALL}
    return post(url, "/v1/images/edits", json=body)


def broken(url: str) -> int:
    """A picture that is none."""
    return post(url, "/process", files={"input_file": PICTURE[:80]})


def private_url(url: str) -> int:
    """A URL that must not be fetched."""
    return post(url, "/process", data={"input_image_url": "http://127.0.0.1/x.png"})


def unknown(url: str) -> int:
    """A route that is not there."""
    return requests.get(f"{url}/v1/nothing", timeout=30).status_code


def gives_up(url: str) -> str:
    """A client that leaves in the middle."""
    form = {"prompt": "a cat", "num_inference_steps": 100}
    try:
        requests.post(f"{url}/process", data=form, timeout=0.3)
    except requests.Timeout:
        return "left"
    return "done"


def streamed(url: str) -> int:
    """A stream that is read to its end."""
    body = {"prompt": "a cat", "stream": True, "partial_images": 2, **SMALL}
    return post(url, "/v1/images/generations", json=body)


def cut_off(url: str) -> str:
    """A stream whose reader leaves after the first bytes."""
    body = {"prompt": "a cat", "stream": True, "steps": 100}
    path = f"{url}/v1/images/generations"
    with requests.post(path, json=body, stream=True, timeout=300) as answer:
        next(answer.iter_content(1), b"")
    return "left"


def deleted(url: str) -> int:
    """A long run that a second connection watches and stops."""
    job = f"{url}/jobs/soak-{secrets.token_hex(8)}"
    form = {"prompt": "a cat", "num_inference_steps": 100, "job_id": job[-21:]}
    asked: list[int] = []
    thread = threading.Thread(
        target=lambda: asked.append(post(url, "/process", data=form))
    )
    thread.start()
    with requests.get(f"{job}/events", stream=True, timeout=300) as events:
        for line in events.iter_lines():
            if line.startswith(b"event: step") or not events.ok:
                break
    requests.delete(job, timeout=300)
    thread.join()
    return asked[0]


def post(url: str, path: str, **body: object) -> int:
    """The status of a POST."""
    answer = requests.post(url + path, timeout=300, **body)  # type: ignore[arg-type]
    return answer.status_code


def picture() -> bytes:
    """PNG bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (320, 200), "orange").save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = picture()
KINDS: list[Callable[[str], object]] = [
    generate,
    several,
    edit,
    variation,
    data_url,
    broken,
    private_url,
    unknown,
    gives_up,
    streamed,
    cut_off,
    deleted,
]

if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 1800.0))
