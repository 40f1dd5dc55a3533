"""What a picture's seconds on a GPU are made of, ``exact``: a row for each stage, for
other ways to decode, and for pictures that are drawn in threads of their own.

A child of ``benchmarks.gpu_check``, which reads the lines that it prints.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

import torch

from benchmarks.gpu_placements import failure, picture_of, read_options, run, say
from flux_api.core import ImageRequest
from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.inputs import Inputs
from flux_api.engine.pipeline_call import PipelineCall
from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.steps import encode_prompt, first_call
from flux_api.engine.vae_tuning import decoding_seconds
from flux_api.loading.group_norm import split
from flux_api.loading.memory import choose_placement
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import choose_device
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.info import ModelInfo
from flux_api.models.toml_file import load_models
from flux_api.settings import Settings

ROUNDS = 5
STEPS = 4
# Of the two families' VAEs.
_PIXELS_A_LATENT = 8


def main() -> int:
    """Print a line for each row after the first ``--skip``."""
    options = read_options()
    info = load_models(options.table, MODEL_INFO)[options.set]
    rows = list(measurements(options.set, info, options.side))
    for name, measure in rows[options.skip :]:
        if time.time() > options.until:
            return 0
        say("BEGIN", {"row": name})
        try:
            row = {"result": "ok", "seconds": f"{measure():.4f}"}
        # Whatever a library raises: the next one may do.
        except Exception as failed:
            row = {"result": failure(failed)}
        say("ROW", {"part": "stages", "row": name} | row)
        say("END", {"row": name})
    return 0


def measurements(
    name: str, info: ModelInfo, side: int
) -> Iterator[tuple[str, Callable[[], float]]]:
    """Each row's name, and what gives its seconds."""
    device = choose_device()
    placement = choose_placement(name, info, Settings(), device, _silent)
    sets = ModelSets({name: info}, lambda *_: placement)
    backend = DiffusersBackend({name: info}, name, batch_tokens=0, sets=sets)
    backend.load(_silent)
    pipeline = sets.use(name, _silent).load("generate", (), _silent).pipeline
    vae, numbers = pipeline.vae, count()

    def request(side: int) -> ImageRequest:
        request = picture_of(name, info, "generate", side, steps=STEPS)
        # A prompt that was not read before.
        return replace(request, loras=(), prompt=f"a red heart {next(numbers)}")

    def encode(side: int = side) -> dict[str, object]:
        task = info.task("generate", masked=False)
        call = PipelineCall(request(side), info, task, seed=1, inputs=Inputs())
        kwargs = call.prepare(pipeline)
        return encode_prompt(pipeline, kwargs, PromptCache(0), (), device)

    def a_step(side: int) -> float:
        kwargs = first_call(pipeline, encode(side), vae)
        with torch.no_grad():
            return _median(lambda: pipeline.transformer(**kwargs))

    def decode(order: torch.memory_format) -> float:
        vae.to(memory_format=order)
        return decoding_seconds(vae, side // _PIXELS_A_LATENT, lambda: None)

    def draw() -> None:
        run(backend, request(side))

    def in_fresh_threads() -> float:
        def drawn() -> None:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(draw).result()

        return _median(drawn)

    yield "the text", lambda: _median(encode)
    half = max(64, side // 2)
    yield f"a step, {half}x{half}", lambda: a_step(half)
    yield f"a step, {side}x{side}", lambda: a_step(side)
    yield f"{STEPS} steps in all", lambda: _median(draw)
    yield f"{STEPS} steps in all, a new thread each", in_fresh_threads
    yield "the decoder", lambda: decode(torch.contiguous_format)
    yield "the decoder, channels last", lambda: decode(torch.channels_last)

    def decode_split(order: torch.memory_format) -> float:
        split(vae)
        return decode(order)

    text = "the decoder, split group norms"
    yield text, lambda: decode_split(torch.contiguous_format)
    yield f"{text}, channels last", lambda: decode_split(torch.channels_last)


def _median(work: Callable[[], object]) -> float:
    """Of several times, after one to get warm."""
    seconds = []
    for _ in range(1 + ROUNDS):
        torch.accelerator.synchronize()
        began = time.perf_counter()
        work()
        torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def _silent(*_: object) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
