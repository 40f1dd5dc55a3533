"""The prepared pictures, the vocabulary, and the pictures kept out of training."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

KNOWN_TO_START = 80
COMMITTED = 354  # the concepts before Japanese and the other 501 came
HELD_OUT = 72
JUDGED = ("noto", "twemoji", "flat", "3d", "emojione")
CONCEPTS = Path(__file__).with_name("concepts.txt")


@dataclass
class Data:
    """Every drawn picture, with what it shows and in which style."""

    images: np.ndarray  # pictures x height x width x RGBA, RGB on white
    codes: np.ndarray
    styles: np.ndarray
    words: dict[str, Any]
    vocabulary: list[str]
    held_out: np.ndarray  # True for pictures that training never sees

    @property
    def size(self) -> int:
        """Return the pictures' width and height."""
        return self.images.shape[1]

    def name(self, index: int) -> str:
        """Return the label of the concept that a picture shows."""
        return self.words[self.codes[index]]["name"]


def read_vocabulary(concepts: Path = CONCEPTS) -> list[str]:
    """Return the labels that a vocabulary file lists."""
    lines = concepts.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def load_data(
    folder: Path, size: int, styles: list[str], concepts: Path | None = CONCEPTS
) -> Data:
    """Return the pictures of these styles; the vocabulary is the file's, or all."""
    words = json.loads((folder / "words.json").read_text())
    with np.load(folder / f"emoji{size}.npz") as stored:
        wanted = np.isin(stored["style"], styles)
        images, codes = stored["images"][wanted], stored["code"][wanted]
        names = stored["style"][wanted]
    if concepts is None:
        vocabulary = [code for code in words if code in set(codes)]
    else:
        by_name = {entry["name"]: code for code, entry in words.items()}
        vocabulary = [by_name[label] for label in read_vocabulary(concepts)]
    held_out = _choose_held_out(codes, names, vocabulary)
    return Data(images, codes, names, words, vocabulary, held_out)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which pictures a program works with, for :func:`read_data`."""
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--styles", required=True)
    parser.add_argument("--concepts", type=Path)


def read_data(options: argparse.Namespace, size: int) -> Data:
    """Return the pictures that the command line names, at this size in pixels."""
    styles = options.styles.split(",")
    return load_data(options.data, size, styles, options.concepts)


def _choose_held_out(
    codes: np.ndarray, styles: np.ndarray, vocabulary: list[str]
) -> np.ndarray:
    """Mark one picture of some concepts; their other styles stay in training.

    Chosen by a hash, so the choice never moves, and only among the concepts that
    the first checkpoint was not trained on.
    """
    ranked: dict[str, list[tuple[str, int]]] = {}
    eligible = set(vocabulary[KNOWN_TO_START:COMMITTED])
    for index, (code, style) in enumerate(zip(codes, styles, strict=True)):
        if code in eligible and style in JUDGED:
            key = hashlib.sha256(f"{code} {style}".encode()).hexdigest()
            ranked.setdefault(code, []).append((key, index))
    firsts = sorted(min(found) for found in ranked.values() if len(found) > 2)
    chosen = np.zeros(len(codes), bool)
    chosen[[index for _, index in firsts[:HELD_OUT]]] = True
    return chosen
