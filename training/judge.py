"""What English prompts and the held-out pictures say of an exported model."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from training.data import KNOWN_TO_START, Data
from training.drawing import Artist
from training.measure import Gallery, main_colour, nearest_op, psnr
from training.pictures import BACKGROUNDS, PAINTS, apply_op, on_white
from training.texts import load_prompts

GATED = ("mono", "mirror", "blur", "bg")
FURTHER = ("rot180", "rot90", "invert")


class Judge:
    """Draws what the fixed prompts ask for and counts what came out right."""

    def __init__(self, artist: Artist, data: Data, stride: int = 1) -> None:
        """Look at every `stride`-th prompt and held-out picture."""
        self.artist, self.data, self.stride = artist, data, stride
        self.prompts = load_prompts()
        self.code = {entry["name"]: code for code, entry in data.words.items()}
        ours = np.isin(data.codes, data.vocabulary) & ~data.held_out
        vae = artist.base.vae
        self.trained = Gallery(vae, data, np.flatnonzero(ours))
        self.everything = Gallery(vae, data, np.arange(len(data.codes)))

    def concepts(self) -> dict[str, Any]:
        """Return how often the asked concept is among the nearest five."""
        entries = self.prompts["generate"][:: self.stride]
        images = self._drawn(entries)
        first = set(self.data.vocabulary[:KNOWN_TO_START])
        codes = [self.code[entry["concept"]] for entry in entries]
        early = np.array([code in first for code in codes])
        found: dict[str, Any] = {"prompts": len(entries)}
        for name, gallery in (("", self.trained), (" of all", self.everything)):
            for kind in ("pixels", "latents"):
                distances = gallery.distances(images, kind)
                pairs = zip(distances, codes, strict=True)
                ranks = np.array([gallery.concept_rank(d, c) for d, c in pairs])
                found[f"top-5 {kind}{name}"] = share(ranks < 5)
                if not name:
                    found[f"top-1 {kind}"] = share(ranks < 1)
                    found[f"top-5 {kind}, first 80"] = share(ranks[early] < 5)
        found["missed"] = [
            entry["prompt"]
            for entry, rank in zip(entries, ranks, strict=True)
            if rank >= 5
        ]
        return found

    def styles(self) -> dict[str, Any]:
        """Return how often the picture is nearest to the asked style's."""
        return self._styles(self.prompts["styles"][:: self.stride])

    def _styles(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        images = self._drawn(entries)
        found: dict[str, Any] = {"prompts": len(entries)}
        for kind in ("pixels", "latents"):
            rows = self.everything.distances(images, kind)
            got = [
                self.everything.nearest_style(row, self.code[entry["concept"]])
                for row, entry in zip(rows, entries, strict=True)
            ]
            asked = np.array([entry["style"] for entry in entries])
            right = np.array(got) == asked
            found[f"right by {kind}"] = share(right)
            found |= {f"{s} by {kind}": share(right[asked == s]) for s in set(asked)}
        return found

    def colours(self) -> dict[str, Any]:
        """Return how often the asked colour rules the picture."""
        return self._colours(self.prompts["colours"][:: self.stride])

    def _colours(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        pairs = zip(self._drawn(entries), entries, strict=True)
        right = [main_colour(image) == entry["colour"] for image, entry in pairs]
        return {"prompts": len(entries), "right": share(right)}

    def edits(self) -> dict[str, Any]:
        """Return PSNR and right answers for each pixel operation."""
        found: dict[str, Any] = {}
        for op in (*GATED, *FURTHER):
            found[op] = self._pixel_edits(op, self.prompts["edits"][op])
        for key in ("psnr", "right"):
            values = [found[op][key] for op in GATED]
            found[f"mean {key}"] = round(float(np.mean(values)), 3)
        return found | {"paint": self._paints(), "style": self._style_transfers()}

    def _pixel_edits(
        self, op: str, wordings: list[str], names: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Judge one operation; `names` are the colours' in another language."""
        rows, colours = self._held_out(), list(BACKGROUNDS)
        ops = [f"bg_{colours[i % len(colours)]}" for i in range(len(rows))]
        ops = ops if op == "bg" else [op] * len(rows)
        bare = [asked.removeprefix("bg_") for asked in ops]
        words = [
            wordings[i % len(wordings)].format((names or {}).get(colour, colour))
            for i, colour in enumerate(bare)
        ]
        pictures = [self.data.images[row] for row in rows]
        made = self._edited(pictures, words)
        triples = list(zip(pictures, made, ops, strict=True))
        near = [psnr(m, apply_op(p, asked)) for p, m, asked in triples]
        right = [nearest_op(p, m, asked) == asked for p, m, asked in triples]
        return {"psnr": round(float(np.mean(near)), 2), "right": share(right)}

    def _paints(self) -> dict[str, Any]:
        pictures = [self.data.images[row] for row in self._held_out()]
        pictures = [p for p in pictures if main_colour(on_white(p))]
        wordings, words, colours = self.prompts["edits"]["paint"], [], []
        for index, picture in enumerate(pictures):
            own = main_colour(on_white(picture))
            others = [colour for colour in PAINTS if colour != own]
            colours.append(others[index % len(others)])
            words.append(wordings[index % len(wordings)].format(colours[-1]))
        made = self._edited(pictures, words)
        right = [main_colour(m) == c for m, c in zip(made, colours, strict=True)]
        return {"right": share(right)}

    def _style_transfers(self) -> dict[str, Any]:
        """Style words on held-out pictures; which of the concept's is nearest?"""
        rows, words, asked = self._held_out(), [], []
        wordings = self.prompts["edits"]["style"]
        for index, row in enumerate(rows):
            same = self.data.codes == self.data.codes[row]
            others = sorted({*self.data.styles[same]} - {self.data.styles[row]})
            asked.append(others[index % len(others)])
            words.append(wordings[index % len(wordings)].format(asked[-1]))
        made = self._edited([self.data.images[row] for row in rows], words)
        found = {}
        for kind in ("pixels", "latents"):
            pairs = zip(self.everything.distances(made, kind), rows, strict=True)
            got = [
                self.everything.nearest_style(d, self.data.codes[r]) for d, r in pairs
            ]
            found[f"right by {kind}"] = share(np.array(got) == np.array(asked))
        return found

    def _held_out(self) -> np.ndarray:
        return np.flatnonzero(self.data.held_out)[:: self.stride]

    def _drawn(self, entries: list[dict[str, Any]]) -> list[Image.Image]:
        prompts = [entry["prompt"] for entry in entries]
        return self.artist.generate(prompts, [entry["seed"] for entry in entries])

    def _edited(
        self, pictures: list[np.ndarray], words: list[str]
    ) -> list[Image.Image]:
        images = [on_white(picture) for picture in pictures]
        return self.artist.edit(images, words, list(range(len(words))))


def share(right: Any) -> float:
    """Return the part of these that is true, to three digits."""
    return round(float(np.mean(right)), 3)
