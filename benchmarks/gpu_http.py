"""A set through HTTP on a GPU: seconds, shared forwards, cancelling, no memory.

A child of ``benchmarks.gpu_check``, which reads the lines that it prints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from benchmarks.server import start

PICTURES = 4
# What is slow once (memory, kernels of another shape) is in the first.
ROUNDS = 2


def main() -> None:
    """Print a line for each row of the parts asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("set")
    parser.add_argument("table")
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--sides", type=int, nargs="+", required=True)
    parser.add_argument("--largest", required=True)
    parser.add_argument("--until", type=float, required=True)
    parser.add_argument("--app", required=True)
    parser.add_argument("--filler", type=json.loads, required=True)
    options = parser.parse_args()
    settings = {"FLUX_MODEL": options.set, "MODEL_INFO": options.table}
    with start(options.app, **settings) as server:
        for part in options.parts:
            if time.time() > options.until:
                return
            _say("BEGIN", {"row": part})
            try:
                for row in PARTS[part](server.url, options):
                    _say("ROW", {"part": part} | row)
            # Whatever it is, the next part may do.
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                _say("ROW", {"part": part, "row": part, "result": f"failed: {why}"})
            _say("END", {"row": part})


def speed(url: str, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Seconds of a step and of a picture with the set's own number of steps."""
    for side in options.sides:
        size = f"{side}x{side}"
        few, many = (_median(url, {"size": size, "steps": n}) for n in (4, 12))
        whole = _median(url, {"size": size})
        yield {
            "row": size,
            "result": "ok",
            "a step": f"{(many - few) / 8:.4f} s",
            "a picture": f"{whole:.3f} s",
        }


def sharing(url: str, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Several small pictures at once against one after the other."""
    size = f"{options.sides[0]}x{options.sides[0]}"
    bodies = [{"size": size, "steps": 12, "seed": n} for n in range(PICTURES)]
    alone = min(_seconds_of(url, bodies, clients=1) for _ in range(ROUNDS))
    together = min(_seconds_of(url, bodies, clients=PICTURES) for _ in range(ROUNDS))
    yield {
        "row": f"{PICTURES} of {size}",
        "result": "ok",
        "one by one": f"{alone:.2f} s",
        "at once": f"{together:.2f} s",
        "gain": f"{alone / together:.2f}",
    }


def _seconds_of(url: str, bodies: list[dict[str, Any]], *, clients: int) -> float:
    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda body: draw(url, body), bodies))
    return time.monotonic() - began


def cancel(url: str, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """From a cancellation in the middle of many steps until nothing runs any more."""
    size = f"{options.sides[-1]}x{options.sides[-1]}"
    body = {"prompt": "a dog", "size": size, "steps": 200}
    headers = {"Prefer": "respond-async"}
    path = f"{url}/v1/images/generations"
    answer = requests.post(path, json=body, headers=headers, timeout=60)
    answer.raise_for_status()
    job = f"{url}/jobs/{answer.headers['X-Job-Id']}"
    first, began = _reach(job, 3)
    step, now = _reach(job, first + 4)
    a_step = (now - began) / (step - first)
    requests.delete(job, timeout=60).raise_for_status()
    while requests.get(f"{url}/v1/status", timeout=60).json()["running"]:
        time.sleep(0.005)
    freed = time.monotonic() - now
    # Of all that were left, a half would be far too many.
    stopped = freed < 60 and freed < (200 - step) / 2 * a_step + 1
    yield {
        "row": f"{size}, 200 steps",
        "result": "ok" if stopped else "failed: it went on drawing",
        "cancelled at step": step,
        "a step": f"{a_step:.3f} s",
        "nothing runs after": f"{freed:.3f} s",
    }


def _reach(job: str, step: int) -> tuple[int, float]:
    """Wait until ``job`` has done ``step``; which one it is at by then, and when."""
    while True:
        told = requests.get(job, timeout=60).json()
        if (done := int(told.get("step") or 0)) >= step:
            return done, time.monotonic()
        if told["state"] not in ("queued", "running"):
            raise RuntimeError(f"the job is {told['state']}: {told.get('error')}")
        time.sleep(0.01)


def out_of_memory(url: str, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """The largest picture while another program holds the card, and one afterwards."""
    large = {"size": options.largest, "steps": 2}
    with _full(options.filler):
        answer = _ask(url, large)
    after = _ask(url, {"size": "64x64", "steps": 1})
    # What the server had taken before may be enough for it.
    good = answer.status_code in (200, 503, 507) and after.status_code == 200
    yield {
        "row": f"{large['size']} on a full card",
        "result": "ok" if good else "failed",
        "answer": answer.status_code,
        "says": answer.json().get("error", {}).get("message", "a picture"),
        "afterwards": after.status_code,
    }


PARTS: dict[str, Callable[[str, argparse.Namespace], Iterator[dict[str, object]]]] = {
    "speed": speed,
    "sharing": sharing,
    "cancel": cancel,
    "oom": out_of_memory,
}


@contextlib.contextmanager
def _full(command: list[str]) -> Iterator[None]:
    """Another program that holds all that was free on the card."""
    filler = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert filler.stdout is not None
        if filler.stdout.readline().strip() != "full":
            raise RuntimeError("the card could not be filled")
        yield
    finally:
        filler.communicate("")


def _median(url: str, body: dict[str, Any]) -> float:
    draw(url, body)
    return statistics.median(draw(url, body) for _ in range(3))


def draw(url: str, body: dict[str, Any]) -> float:
    """Seconds of one picture."""
    began = time.monotonic()
    _ask(url, body).raise_for_status()
    return time.monotonic() - began


def _ask(url: str, body: dict[str, Any]) -> requests.Response:
    path = f"{url}/v1/images/generations"
    return requests.post(path, json={"prompt": "a red heart"} | body, timeout=300)


def _say(word: str, facts: dict[str, Any]) -> None:
    print(word, json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
