"""Many requests of two sizes and two models, with one of three LoRAs or none, through
compiled blocks: none may fail, and nothing may be compiled while they run.

python -m tests.mixed [--count 64] [--compiler inductor]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flux_api.core import Completed, Lora
from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.tuning import Tuner
from flux_api.loading.compiling import graphs
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement
from flux_api.models.info import ModelInfo, TaskDefaults
from flux_api.models.lora_files import LoraFolder
from flux_api.models.sizes import SizeRules
from flux_api.models.sources import Folder
from flux_api.queue.manager import PipelineManager
from tests.support.complete import complete
from tests.support.submitting import submit
from tests.support.tiny_checkpoints import build
from tests.support.tiny_sets import write_lora

SIZES = ((64, 64), (96, 64))
LORAS = {"flux1": ("one", "two"), "klein": ("three",)}
PIPELINES = {"flux1": ("dev", "FluxPipeline"), "klein": ("klein", "Flux2KleinPipeline")}
CPU = torch.device("cpu")


class Mixed:
    """A backend in ``speed`` over two tiny models in ``folder``, compiled whether it
    pays or not; or with another ``tuner``. LoRAs lie in ``loras``; of FLUX.1 those in
    ``own`` are always on."""

    own: tuple[Lora, ...] = ()

    def __init__(
        self,
        folder: Path,
        compiler: str | Callable[..., Any],
        tuner: Tuner | None = None,
    ) -> None:
        self.loras = loras = folder / "loras"
        loras.mkdir(parents=True)
        for family, names in LORAS.items():
            for seed, name in enumerate(names):
                write_lora(loras / f"{name}.safetensors", family=family, seed=seed)
        self.models = {
            name: model_of(
                build(checkpoint, folder / checkpoint),
                pipeline,
                self.own if name == "flux1" else (),
            )
            for name, (checkpoint, pipeline) in PIPELINES.items()
        }
        sets = ModelSets(
            self.models,
            lambda *_: Placement(CPU),
            most=len(self.models),
            loras=LoraFolder(loras),
        )
        self.backend = DiffusersBackend(
            self.models,
            "flux1",
            batch_tokens=9000,
            sets=sets,
            tuner=tuner
            or Tuner("speed", CPU, compiler=compiler, is_worth_it=lambda *_: True),
        )
        self.manager = PipelineManager(lambda: self.backend, max_queue=1000)
        self.manager.start()
        while (reason := self.manager.not_ready) is not None:
            assert self.manager.state != "failed", reason
            time.sleep(0.05)

    def draw(self, requests: list[dict[str, object]], clients: int) -> list[Completed]:
        """All of ``requests``, by so many callers at once."""
        left, lock, ended = iter(requests), threading.Lock(), []

        def call(caller: int) -> None:
            while True:
                with lock:
                    wanted = next(left, None)
                if wanted is None:
                    return
                job = submit(self.manager, self.complete(wanted), caller=str(caller))
                ended.append(job.wait(600))

        threads = [threading.Thread(target=call, args=(n,)) for n in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failed = [one for one in ended if not isinstance(one, Completed)]
        assert not failed, getattr(failed[0], "error", failed[0])
        assert len(ended) == len(requests)
        return ended

    def complete(self, wanted):
        """The request in whole."""
        name, lora, size, seed = (wanted[k] for k in ("model", "lora", "size", "seed"))
        request = complete(
            name,
            self.models[name],
            prompt=f"a cat {seed}",
            size=size,
            seed=seed,
            num_inference_steps=3,
        )
        loras = (Lora(lora),) if lora else ()
        object.__setattr__(request, "loras", loras)
        return request


def model_of(checkpoint: Path, pipeline: str, loras: tuple[Lora, ...]) -> ModelInfo:
    """A set of one task over ``checkpoint``, with ``loras`` on."""
    row = TaskDefaults(
        pipeline=pipeline, num_inference_steps=3, guidance_scale=1.0, loras=loras
    )
    return ModelInfo(
        base_model=Folder(checkpoint),
        tasks={"generate": row},
        sizes=SizeRules(default=(64, 64)),
    )


def kinds() -> list[dict[str, object]]:
    """Each kind of request once."""
    return [
        {"model": model, "lora": lora, "size": size}
        for model, size in itertools.product(PIPELINES, SIZES)
        for lora in (None, *LORAS[model])
    ]


def run(mixed: Mixed, count: int) -> tuple[int, int]:
    """Draw each kind of request three at a time, then ``count`` of all kinds mixed; how
    many graphs were compiled by then and in the end."""
    for kind in kinds():
        mixed.draw([kind | {"seed": seed} for seed in range(3)], 3)
    before = graphs()
    every = itertools.cycle(kinds())
    mixed.draw([next(every) | {"seed": seed} for seed in range(count)], 6)
    return before, graphs()


def main() -> None:
    """The whole of it, by the real compiler."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--compiler", default="inductor")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        warm, end = run(Mixed(Path(folder), options.compiler), options.count)
    seconds = time.monotonic() - began
    print(f"{options.count} requests in {seconds:.0f} s with start and warm-up;")
    print(f"{warm} graphs compiled to get warm, {end - warm} after that.")
    assert warm > 0
    assert end == warm


if __name__ == "__main__":
    main()
