"""``python -m benchmarks.peers``: the same requests to this server and to muse (PyPI:
museq), another small server of diffusers pipelines, in one run.

It is installed into ``.venv-peers``, over the very torch and diffusers of this
environment. Both draw with the embedded model's weights in float32, unguided, with as
many tokens of text and as short waits of OpenMP's threads, and answer with Base64 in
OpenAI's words; requests go to one and the other in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from benchmarks.report import RESULTS, Report
from benchmarks.server import ROOT, cpu_seconds, free_address, start

PEER = "museq[server]==0.60.2"
TINY = ROOT / "models" / "tiny"
STEPS = (2, 8)
CLIENTS = 4
_SEEDS = itertools.count()


def main() -> None:
    """Print one line a measurement; exit status 1 where the peer cannot be installed
    or does not start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv-peers")
    options = parser.parse_args()
    report = Report("peers", options.results)
    python = install(options.environment)
    with start() as ours, start_peer(python) as (url, pid):
        sides = {"ours": ours.url, "muse": url}
        pids = {"ours": ours.worker(), "muse": pid}
        for steps in STEPS:
            _compare(report, sides, pids, steps, options.rounds)
    report.write()


def install(environment: Path) -> Path:
    """Have the peer in ``environment``, and give its Python; SystemExit where it cannot
    be had."""
    python = environment.resolve() / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        # Last in its path: what it wants in another version, it gets.
        [own] = environment.glob("lib/python*/site-packages")
        [torch] = Path(sys.prefix).glob("lib/python*/site-packages")
        (own / "torch.pth").write_text(f"{torch}\n")
    command = [python, "-m", "pip", "install", "--quiet", PEER]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason was given"]
        raise SystemExit(f"{PEER} cannot be installed here: {last[0]}")
    return python


@contextlib.contextmanager
def start_peer(python: Path) -> Iterator[tuple[str, int]]:
    """Its address and process id, once it is ready."""
    address = free_address()
    url = f"http://{address}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = _as_text_to_image(Path(scratch))
        command = [python, "benchmarks/peer_app.py", folder, address.rpartition(":")[2]]
        environment = os.environ | {"GOMP_SPINCOUNT": "1000"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )
        try:
            until = time.monotonic() + 300
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{PEER} did not start: {command[1]}")
                time.sleep(0.2)
            yield url, process.pid
        finally:
            process.terminate()
            process.wait(60)


def _as_text_to_image(folder: Path) -> Path:
    """The embedded model under the class that draws from texts: as it ships, diffusers'
    automatic choice takes an editor's, which draws a megapixel whatever is asked."""
    for part in TINY.iterdir():
        (folder / part.name).symlink_to(part)
    index = json.loads((TINY / "model_index.json").read_text())
    (folder / "model_index.json").unlink()
    text = json.dumps(index | {"_class_name": "FluxPipeline"})
    (folder / "model_index.json").write_text(text)
    return folder


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


def _compare(
    report: Report,
    sides: dict[str, str],
    pids: dict[str, int],
    steps: int,
    rounds: int,
) -> None:
    sessions = {name: requests.Session() for name in sides}
    times: dict[str, list[float]] = {name: [] for name in sides}
    used = dict.fromkeys(sides, 0.0)
    for number in range(rounds + 2):
        for name, url in sides.items():
            began, before = time.perf_counter(), cpu_seconds(pids[name])
            _ask(sessions[name], url, steps)
            if number >= 2:  # What is slow once is nobody's latency.
                times[name].append(time.perf_counter() - began)
                used[name] += cpu_seconds(pids[name]) - before
    what = f"64x64, {steps} steps"
    for name, found in times.items():
        report.add(f"{what}: {name}, median", statistics.median(found) * 1000, "ms")
    middle = {name: statistics.median(found) for name, found in times.items()}
    report.add(f"{what}: median over muse's", middle["ours"] / middle["muse"], "x")
    least = min(times["ours"]) / min(times["muse"])
    report.add(f"{what}: minimum over muse's", least, "x")
    report.add(f"{what}: CPU time over muse's", used["ours"] / used["muse"], "x")
    rates = {name: _rate(url, steps, 2 * rounds) for name, url in sides.items()}
    ratio = rates["ours"] / rates["muse"]
    report.add(f"{what}: pictures/s at {CLIENTS} clients over muse's", ratio, "x")


def _rate(url: str, steps: int, pictures: int) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool, requests.Session() as session:
        list(pool.map(lambda _: _ask(session, url, steps), range(pictures)))
    return pictures / (time.perf_counter() - began)


def _ask(session: requests.Session, url: str, steps: int) -> None:
    """A picture by a new prompt. Both know ``steps``; the other says nothing of our
    ``guidance_scale``, and is not guided anyway."""
    seed = next(_SEEDS)
    asked: dict[str, Any] = {
        "model": "tiny",
        "prompt": f"a red heart {seed}",
        "size": "64x64",
        "n": 1,
        "response_format": "b64_json",
        "seed": seed,
        "steps": steps,
        "guidance_scale": 1.0,
    }
    answer = session.post(f"{url}/v1/images/generations", json=asked, timeout=600)
    answer.raise_for_status()
    assert answer.json()["data"][0]["b64_json"]


if __name__ == "__main__":
    main()
