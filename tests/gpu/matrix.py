"""Every set, as it may be held in memory, at every task: ``python -m tests.gpu.matrix``
prints a table of what draws and what is refused, and why. ``make gpu-matrix``."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import get_args

import requests

from flux_api.models.catalog import MODEL_INFO
from flux_api.models.info import TaskName
from flux_api.models.upscaling import with_upscale
from flux_api.settings import Offload, Quantization
from tests.engine.test_families import draw
from tests.gpu.card_server import new_card, run_on
from tests.support.checkpoint_forms import build_base, read, to_bfl, write_gguf
from tests.support.servers import QUIET, ROOT
from tests.support.tiny_sets import BASES, write_loras, write_sets

MODES = tuple(itertools.product(get_args(Quantization), get_args(Offload)))
# A file of packed weights has its quantization already.
GGUF = "gguf"
GGUF_MODES = tuple((GGUF, offload) for offload in get_args(Offload))
SETS = ("tiny", *BASES)
GGUF_SETS = {"klein-4b": "klein", "schnell": "flux1"}
# Those that are quantized or moved in ways of their own: all their tasks count.
THOROUGH = ("klein-4b", "flux1")

_REFUSALS = """
import json, sys
from tests.gpu.simulated import switch_on
if sys.argv[1:]:
    switch_on()
from flux_api.errors import BadSetting
from flux_api.loading.placement import check_placement, choose_device
from tests.gpu.matrix import MODES
why = {}
for mode in MODES:
    try:
        check_placement(*mode, choose_device())
    except BadSetting as error:
        why["/".join(mode)] = str(error)
print(json.dumps(why))
"""


def refusals(card):
    """Why the server does not start in some modes, by "quantization/offload"."""
    settings = QUIET | ({"SIMULATED_GPU_CARD": str(card.path)} if card else {})
    command = [sys.executable, "-c", _REFUSALS, *(["simulated"] if card else [])]
    done = subprocess.run(
        command, env=settings, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def tasks_of(name):
    """What the set ``name`` does."""
    return list(with_upscale(MODEL_INFO[name]).tasks)


def held_as(name, mode):
    """The set ``name`` held in ``mode``: a set of its own, for the server."""
    return "-".join((name, *mode))


def write_matrix(folder, modes):
    """Checkpoints under ``folder`` for every set in all ``modes``; gives the settings
    of a server that offers them."""
    path = write_sets(folder)
    lines = [path.read_text()]
    for name, mode in itertools.product(SETS, modes):
        quantization, offload = mode
        lines += [f"[{held_as(name, mode)}]", f'like = "{name}"']
        lines += [f'quantization = "{quantization}"', f'offload = "{offload}"']
    for name, family in GGUF_SETS.items():
        base = build_base(family, folder / f"{family}-wide")
        file = folder / f"{family}.gguf"
        write_gguf(file, to_bfl(family, read(base, "transformer")), "Q8_0")
        for mode in GGUF_MODES:
            lines += [f"[{held_as(name, mode)}]", f'like = "{name}"']
            lines += [f'offload = "{mode[1]}"', f'base_model = "{base}"']
            lines += [f'transformer = "{file}"']
    path.write_text("\n".join(lines))
    offered = [held_as(*row) for row in rows(modes)]
    return {
        "MODEL_INFO": path,
        "FLUX_MODELS": ",".join(offered),
        "FLUX_LORA_DIR": write_loras(folder / "loras"),
    }


def there_and_back(server, name, mode, tasks):
    """Draw each of ``tasks``, then in the reverse order once more: what another task
    took over meanwhile comes back, and the pictures, which it gives, are the same."""
    model = held_as(name, mode)
    first = {task: draw(server, model, task)[1] for task in tasks}
    for task in list(reversed(tasks))[len(tasks) > 1 :]:
        assert (draw(server, model, task)[1] == first[task]).all(), task
    return first


def leave_no_trace(server, name, mode, plain):
    """Draw with a LoRA and without, which is ``plain``: it counts, and is gone."""
    model, family = held_as(name, mode), {"klein-4b": "klein"}.get(name, name)
    assert (draw(server, model, "generate", loras=f"{family}.a:2")[1] != plain).any()
    assert (draw(server, model, "generate")[1] == plain).all()


def _cells(server, name, mode):
    """What came of each task, there and back."""
    model, first, said = held_as(name, mode), {}, {}
    tasks = tasks_of(name)
    for task in [*tasks, *reversed(tasks)]:
        try:
            picture = draw(server, model, task)[1]
        except (AssertionError, requests.RequestException) as error:
            said[task] = "FAILS: " + " ".join(str(error).split())[:120]
            continue
        same = (first.setdefault(task, picture) == picture).all()
        said.setdefault(task, "ok" if same else "FAILS: another picture")
    return [said.get(task, "no such task") for task in get_args(TaskName)]


def main():
    """Print the table; ends with 1 where something fails."""
    failed = False
    columns = ("set", "quantization", "offload", *get_args(TaskName))
    with tempfile.TemporaryDirectory() as folder:
        card = new_card(Path(folder) / "card")
        refused = refusals(card)
        modes = [mode for mode in MODES if "/".join(mode) not in refused]
        settings = write_matrix(Path(folder), modes)
        with run_on(card, **settings) as server:
            server.wait_ready()
            _say(columns)
            _say(["---"] * len(columns))
            for name, mode in rows(modes):
                cells = _cells(server, name, mode)
                failed |= any(cell.startswith("FAILS") for cell in cells)
                _say([name, *mode, *cells])
    for mode, why in refused.items():
        _say(["every set", *mode.split("/"), f"refused: {why}"])
    return int(failed)


def _say(cells):
    print("|", " | ".join(cells), "|", flush=True)


def rows(modes):
    """Each set with each of ``modes``, and with those of its GGUF file."""
    own = [(name, mode) for name in SETS for mode in modes]
    return own + [(name, mode) for name in GGUF_SETS for mode in GGUF_MODES]


if __name__ == "__main__":
    sys.exit(main())
