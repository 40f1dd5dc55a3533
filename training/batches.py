"""Draws the training batches: text to image, and instruction plus image to image."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from training.data import COMMITTED, Data
from training.latents import Latents
from training.pictures import BACKGROUNDS, OPS, PAINTS
from training.writers import Writers, names_colour

CODE = {op: index for index, op in enumerate(OPS)}
# How often each kind of edit is shown. Filters are learnt within minutes, and a style
# transfer hardly ever: it gets most of the room, but what is not shown is forgotten.
EDITS = {
    "mono": 30,
    "mirror": 16,
    "rot180": 5,
    "rot90": 5,
    "blur": 6,
    "invert": 4,
    "bg": 18,
    "white": 3,
    "style": 18,
    "paint": 6,
    "replace": 8,
    "keep": 2,
}
EMPTY_PROMPTS = 0.1
# Of the pictures with one plain colour, how many are painted in another, and how many
# of the rest name their own: colour words fade first when they are seldom met.
PAINTED = 0.22
OWN_COLOUR = 0.25
KNOWN_BEFORE_WEIGHT = 0.6


@dataclass
class Batch:
    """Rows and operations of the targets, of the references if any, and prompts."""

    rows: list[int] = field(default_factory=list)
    ops: list[int] = field(default_factory=list)
    reference_rows: list[int] = field(default_factory=list)
    reference_ops: list[int] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)

    def add(self, prompt: str, target: tuple[int, str], reference=None) -> None:
        """Append one sample."""
        self.prompts.append(prompt)
        self.rows.append(target[0])
        self.ops.append(CODE[target[1]])
        if reference:
            self.reference_rows.append(reference[0])
            self.reference_ops.append(CODE[reference[1]])


class Sampler:
    """Draws batches from the encoded pictures."""

    def __init__(self, data: Data, latents: Latents, seed: random.Random) -> None:
        """Index the rows by concept and by style."""
        self.data, self.latents, self.random = data, latents, seed
        self.writer = Writers(seed)
        self.codes = data.codes[latents.rows]
        self.styles = data.styles[latents.rows]
        self.known = range(latents.known)
        self.everything = range(len(latents.rows))
        self.siblings: dict[str, list[int]] = {}
        self.same_style: dict[str, list[int]] = {}
        for row in self.known:
            self.siblings.setdefault(self.codes[row], []).append(row)
            self.same_style.setdefault(self.styles[row], []).append(row)
        # What the model knows already needs fewer looks than what is new to it.
        before = set(data.vocabulary[:COMMITTED] if data.vocabulary[COMMITTED:] else [])
        weights = [KNOWN_BEFORE_WEIGHT if c in before else 1.0 for c in self.codes]
        self.weights = np.cumsum(weights[: latents.known]).tolist()
        self.painted = [r for r in self.known if latents.colours[r]]

    def generate(self, count: int) -> Batch:
        """Return a batch of captions and pictures."""
        batch = Batch()
        drawn = self.random.choices(self.known, cum_weights=self.weights, k=count)
        for row in drawn:
            op = self._caption_op(row)
            concept = self.data.words[self.codes[row]]
            prompt = self.writer.caption(concept, self.styles[row], op)
            own = self.latents.colours[row]
            if (
                op == "none"
                and own
                and not names_colour(prompt, own)
                and self._chance(OWN_COLOUR)
            ):
                # The colour that the picture has anyway gives the word its meaning.
                style = self.styles[row]
                prompt = self.writer.caption(concept, style, f"paint_{own}")
            batch.add("" if self._chance(EMPTY_PROMPTS) else prompt, (row, op))
        return batch

    def edit(self, count: int) -> Batch:
        """Return a batch of instructions, references and results."""
        batch = Batch()
        kinds = self.random.choices(list(EDITS), weights=list(EDITS.values()), k=count)
        for kind in kinds:
            prompt, target, reference = self._edit(kind)
            empty = self._chance(EMPTY_PROMPTS)
            batch.add("" if empty else prompt, target, reference)
        return batch

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def _caption_op(self, row: int) -> str:
        share = self.random.random()
        if share < 0.1:
            return f"bg_{self.random.choice(list(BACKGROUNDS))}"
        if share < 0.13:
            return self.random.choice(("mono", "mono", "rot180", "rot90", "blur"))
        if share < 0.13 + PAINTED and self.latents.colours[row]:
            return self._paint_op(row)
        return "none"

    def _paint_op(self, row: int) -> str:
        others = [word for word in PAINTS if word != self.latents.colours[row]]
        return f"paint_{self.random.choice(others)}"

    def _edit(self, kind: str) -> tuple[str, tuple[int, str], tuple[int, str]]:
        """Return the instruction, the target and the reference of one edit."""
        pick, write = self.random.choice, self.writer.instruction
        row = pick(self.known if self._chance(0.6) else self.everything)
        before = f"bg_{pick(list(BACKGROUNDS))}"
        if kind == "bg":
            colour = pick(list(BACKGROUNDS))
            start = before if self._chance(0.25) else "none"
            name = self.data.name(self.latents.rows[row])
            words = write(kind, c=colour, n=name)
            return words, (row, f"bg_{colour}"), (row, start)
        if kind == "white":
            return write(kind), (row, "none"), (row, before)
        if kind == "keep":
            name = self.data.name(self.latents.rows[row])
            return write(kind, n=name), (row, "none"), (row, "none")
        if kind not in ("style", "paint", "replace"):
            return write(kind), (row, kind), (row, "none")
        row = pick(self.painted if kind == "paint" and self.painted else self.known)
        name = self.data.name(self.latents.rows[row])
        if kind == "paint" and self.painted:
            op = self._paint_op(row)
            words = write(kind, c=op.removeprefix("paint_"), n=name)
            return words, (row, op), (row, "none")
        if kind == "style":
            target = pick(self.siblings[self.codes[row]])
            op = before if self._chance(0.12) else "none"
            words = write(kind, s=self.styles[target], n=name)
            return words, (target, op), (row, op)
        target = pick(self.same_style[self.styles[row]])
        words = write("replace", n=self.data.name(self.latents.rows[target]))
        return words, (target, "none"), (row, "none")
