"""``make gpu-check`` runs whole on the simulated GPU, with tiny sets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest

from benchmarks import gpu_http, gpu_placements
from benchmarks.gpu_check import LARGEST, SETS
from flux_api.models.catalog import MODEL_INFO
from tests.support.servers import QUIET, ROOT
from tests.support.tiny_sets import write_sets

# Each kind of part with one of the two sets; ``make gpu-check --simulated`` does all.
PARTS = ("klein-4b-speed", "klein-4b-sharing", "klein-4b-cancel", "klein-4b-oom")
PARTS += ("klein-4b-stages", "flux1-placements")

pytest.importorskip("tests.gpu.simulated", reason="there is no simulated GPU")


def check(folder, *options):
    """The command, and the sections that it wrote, each as a list of rows."""
    out = folder / "gpu.md"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", *options]
        + ["--folder", str(folder), "--out", str(out)],
        env=QUIET,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    text = out.read_text() if out.exists() else ""
    found = {}
    for section in text.split("\n## ")[1:]:
        name, _, table = section.partition("\n")
        head, _, *rows = (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in table.strip().splitlines()
        )
        found[name] = [dict(zip(head, row, strict=True)) for row in rows]
    return done, text, found


@pytest.fixture(scope="module")
def whole(card, tmp_path_factory):
    """Those parts."""
    if card is None:
        pytest.skip("a real card is measured by make gpu-check itself")
    options = "--simulated", "--seconds=3000", "--only", *PARTS
    folder = tmp_path_factory.mktemp("check")
    return *check(folder, *options), folder


def test_every_part_is_measured_and_nothing_fails(whole):
    done, text, found, _ = whole
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(found) == set(PARTS)
    for part, rows in found.items():
        for row in rows:
            assert row["result"] == "ok" or row["result"].startswith("refused"), part
    assert re.search(r"\d{4}-\d\d-\d\d; card Simulated GPU, 80 GiB; CUDA", text)


def test_the_same_is_in_json_beside_the_page(whole):
    told = json.loads((whole[3] / "gpu.json").read_text())
    assert told["card"] == "Simulated GPU, 80 GiB"
    assert told["torch"] and told["date"]
    for part, rows in whole[2].items():
        assert [row["result"] for row in told["rows"][part]] == [
            row["result"] for row in rows
        ]


def test_a_cancellation_frees_the_card_within_a_few_steps(whole):
    [row] = whole[2]["klein-4b-cancel"]
    assert 7 <= int(row["cancelled at step"]) < 200
    for key in ("a step", "nothing runs after"):
        assert float(row[key].split()[0]) > 0


def test_a_placement_has_its_peak_and_its_plan(whole):
    rows = [row for row in whole[2]["flux1-placements"] if row["result"] == "ok"]
    tasks = [row["task"] for row in rows if row["row"] == "none, text"]
    assert tasks == ["generate", "edit", "variation", "inpaint"]
    for row in rows:
        peak, planned = (float(row[key].split()[0]) for key in ("peak", "planned"))
        assert 0 < peak <= planned
        assert float(row["a step"].split()[0]) > 0


def test_a_full_card_refuses_and_draws_again(whole):
    [row] = whole[2]["klein-4b-oom"]
    assert row["answer"] in ("503", "507") and row["afterwards"] == "200"
    assert "memory" in row["says"]


@pytest.mark.skipif(find_spec("torchao") is not None, reason="torchao is installed")
def test_what_is_missing_says_so_and_the_next_one_goes_on(whole):
    rows = whole[2]["flux1-placements"]
    refused = [row["row"] for row in rows if row["result"].startswith("refused")]
    assert refused == ["fp8, text"]
    assert "requirements-fp8.txt" in str(rows)
    assert rows[-1]["row"] == "none, sequential"


def test_a_level_is_measured_beside_the_floor(simulated, tmp_path):
    """The last of them, without the others."""
    table = write_sets(tmp_path, ("klein-4b",), 256)
    child = ["-m", "tests.gpu", "benchmarks.gpu_levels", "klein-4b", str(table)]
    steady = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *child, "--side=64", "--skip=2", "--until=1e11"],
        env=QUIET | steady | {"SIMULATED_GPU_CARD": str(simulated.path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [text] = re.findall(r"^ROW (.*)$", done.stdout, re.MULTILINE)
    row = json.loads(text)
    assert (row["part"], row["row"], row["result"]) == ("levels", "max", "ok")
    # Whether it is worth it there is a matter of time: what came instead says why.
    assert row["drawn as"] == "max" or row["note"]
    assert row["drawn as"] in ("exact", "speed", "max")
    assert row["held"] == "none, none"
    seconds, floor = (
        float(row[key].split()[0]) for key in ("64x64, 4 steps", "16-bit floor")
    )
    assert 0 < floor < seconds


@pytest.mark.usefixtures("simulated")
def test_a_server_that_does_not_start_is_a_row_that_failed(tmp_path, monkeypatch):
    (tmp_path / "gunicorn.py").write_text("raise ImportError('no gunicorn here')\n")
    monkeypatch.setitem(QUIET, "PYTHONPATH", str(tmp_path))
    done, _, found = check(tmp_path, "--simulated", "--only", "klein-4b-speed")
    assert done.returncode == 1
    assert "no gunicorn here" in found["klein-4b-speed"][0]["result"]


@pytest.mark.usefixtures("simulated")
def test_without_a_gpu_it_says_so(tmp_path):
    done, text, _ = check(tmp_path)
    assert done.returncode == 2 and not text
    assert "There is no GPU to measure" in done.stderr


@pytest.mark.parametrize("name", SETS)
def test_the_largest_picture_is_one_that_the_set_draws(name):
    size = tuple(map(int, LARGEST[name].split("x")))
    rules = MODEL_INFO[name].sizes
    assert rules.choose(rules.default, size, "size") == size
    assert size[0] * size[1] == rules.max_pixels


class Failing(BaseHTTPRequestHandler):
    """A server whose job fails before its first step."""

    def do_POST(self):
        self.answer({}, 202)

    def do_GET(self):
        self.answer({"state": "failed", "error": {"message": "no memory"}}, 200)

    def answer(self, told, status):
        self.send_response(status)
        self.send_header("X-Job-Id", "one")
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    def log_message(self, *_):
        pass


def test_a_job_that_fails_is_not_waited_for():
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(RuntimeError, match="the job is failed.*no memory"):
            list(gpu_http.cancel(url, Namespace(sides=(64, 96))))
        server.shutdown()


def test_a_way_that_fails_in_a_library_leaves_the_next_one(
    tmp_path, monkeypatch, capsys
):
    def measure(name, info, way, side):
        if way.offload == "none":
            raise ValueError("of another version\nand more")
        yield {"result": "ok"}

    table = tmp_path / "m.toml"
    table.write_text("")
    ways = [gpu_placements.Way("none", offload, ()) for offload in ("none", "text")]
    monkeypatch.setattr(gpu_placements, "measure", measure)
    monkeypatch.setattr(gpu_placements, "WAYS", {"klein-4b": ways})
    options = ["--side=64", "--skip=0", "--until=1e11"]
    monkeypatch.setattr("sys.argv", ["placements", "klein-4b", str(table), *options])
    assert gpu_placements.main() == 0
    rows = re.findall(r"^ROW (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert [json.loads(row)["result"] for row in rows] == [
        "failed: ValueError: of another version",
        "ok",
    ]
