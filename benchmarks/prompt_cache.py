"""``python -m benchmarks.prompt_cache``: encoding a prompt that is known against one
that is new, with the embedded model; how many prompts a request for four pictures
encodes."""

from __future__ import annotations

import dataclasses
import itertools
import statistics

import torch

from benchmarks.bare import BarePipeline
from benchmarks.report import Report, in_turns, read_options
from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.steps import encode_prompt
from flux_api.http.model_defaults import Inputs, complete_request
from flux_api.http.parameters import Parameters
from flux_api.models.catalog import MODEL_INFO
from flux_api.queue.tasks import Callbacks, Picture

CPU = torch.device("cpu")


def main() -> None:
    """Print one line a measurement."""
    options = read_options(__doc__, rounds=100)
    rounds, report = options.rounds, Report("prompt_cache", options.results)
    pipeline, cache = BarePipeline().pipeline, PromptCache(256 << 20)
    numbers = itertools.count()

    def encode(prompt: str) -> None:
        kwargs = {"prompt": prompt, "max_sequence_length": 77}
        encode_prompt(pipeline, kwargs, cache, "weights", CPU)

    encode("a red heart")
    new, known = in_turns(
        rounds,
        lambda: encode(f"a red heart {next(numbers)}"),
        lambda: encode("a red heart"),
    )
    report.add("a new prompt", statistics.median(new) * 1000, "ms")
    report.add("a known prompt", statistics.median(known) * 1000, "ms")
    ratio = statistics.median(known) / statistics.median(new)
    report.add("known over new", ratio, "x")
    for name, count in _encodings().items():
        report.add(f"n=4{name}: prompts encoded", count, "")
    report.write()


def _encodings() -> dict[str, int]:
    """How often the text encoder runs for four pictures of one prompt."""
    backend = DiffusersBackend(MODEL_INFO, "tiny", batch_tokens=0)
    backend.load(_ignore)
    values = {"prompt": "a blue heart", "seed": 1}
    request = complete_request(
        "tiny", MODEL_INFO["tiny"], "generate", Parameters.read(values), Inputs()
    )
    request = dataclasses.replace(request, num_images_per_prompt=4)
    pipeline = backend.sets.use("tiny", _ignore).load("generate", (), _ignore).pipeline
    run: list[int] = []
    pipeline.text_encoder_2.register_forward_hook(lambda *_: run.append(1))
    quiet = Callbacks(lambda: None, _ignore, _ignore, _ignore)
    found = {}
    for name in ("", ", again"):
        run.clear()
        for index in range(4):
            backend.run(Picture(request, index, "bench"), quiet)
        found[name] = len(run)
    return found


def _ignore(*_: object) -> None:
    pass


if __name__ == "__main__":
    main()
