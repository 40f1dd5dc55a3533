"""``python -m benchmarks.prompt_cache``: encoding a prompt that is known against one
that is new, with the embedded model."""

from __future__ import annotations

import itertools
import statistics

from benchmarks.bare import BarePipeline
from benchmarks.report import Report, in_turns, read_options
from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.steps import encode_prompt


def main() -> None:
    """Print one line a measurement."""
    options = read_options(__doc__, rounds=100)
    rounds, report = options.rounds, Report("prompt_cache", options.results)
    pipeline, cache = BarePipeline().pipeline, PromptCache(256 << 20)
    numbers = itertools.count()

    def encode(prompt: str) -> None:
        kwargs = {"prompt": prompt, "max_sequence_length": 77}
        encode_prompt(pipeline, kwargs, cache, "weights")

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
    report.write()


if __name__ == "__main__":
    main()
