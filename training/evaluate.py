"""Judge an exported model by every fixed prompt, in both languages."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data import add_data_options, read_data
from training.drawing import Artist
from training.japanese import COLOURS
from training.judge import Judge, share
from training.texts import load_prompts

PARTS = "concepts,styles,colours,edits,new,japanese,japanese_edits"
NEAREST = 5


class BilingualJudge(Judge):
    """Also counts what Japanese prompts and the later concepts bring.

    Here a picture always has all 1,914 concepts to be taken for, not only those
    that were trained.
    """

    def new(self) -> dict[str, Any]:
        """Judge English prompts for concepts that came later."""
        return self._among_all(load_prompts("new_concepts")["generate"])

    def japanese(self) -> dict[str, Any]:
        """Judge Japanese prompts: things, colours and styles."""
        prompts = load_prompts("japanese")
        return {
            "concepts": self._among_all(prompts["concepts"]),
            "colours": self._colours(prompts["colours"][:: self.stride]),
            "styles": self._styles(prompts["styles"][:: self.stride]),
            "concepts of styles": self._among_all(prompts["styles"]),
            "more styles": self._styles(prompts["more_styles"][:: self.stride]),
        }

    def japanese_edits(self) -> dict[str, Any]:
        """Judge Japanese orders on the held-out pictures."""
        names = {word: forms["noun"] for word, forms in COLOURS.items()}
        orders = load_prompts("japanese")["edits"]
        return {op: self._pixel_edits(op, orders[op], names) for op in orders}

    def _among_all(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        entries = entries[:: self.stride]
        distances = self.everything.distances(self._drawn(entries), "latents")
        codes = [self.code[entry["concept"]] for entry in entries]
        pairs = zip(distances, codes, strict=True)
        ranks = np.array([self.everything.concept_rank(d, c) for d, c in pairs])
        missed = zip(entries, ranks, strict=True)
        return {
            "prompts": len(entries),
            "top-5 of all by latents": share(ranks < NEAREST),
            "top-1 of all by latents": share(ranks < 1),
            "missed": [entry["prompt"] for entry, rank in missed if rank >= NEAREST],
        }


def main() -> None:
    """Print what the model reaches, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/tiny"))
    add_data_options(parser)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--parts", default=PARTS)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    artist = Artist(options.model, options.steps)
    data = read_data(options, artist.size)
    judge = BilingualJudge(artist, data, options.stride)
    found = {part: getattr(judge, part)() for part in options.parts.split(",")}
    print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
