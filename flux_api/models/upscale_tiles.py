"""The tiles in which a picture is made larger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

GRID = 16
"""Models draw sides of multiples of these pixels."""

LARGEST = 1024
"""Pixels of a side that a model of any size draws at once."""

# Of a tile, what it shares with its neighbour; models need some pixels to settle.
_SHARED, _LEAST_SHARED = 8, 24
# With what they share that is one more tile in a row, or two.
_MOST_ACROSS = 5

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Tiling:
    """Where the tiles of a picture of ``size`` = (width, height) lie: of ``tile``
    pixels each way, or all that there is, ``overlap`` of them in common."""

    size: tuple[int, int]
    tile: int
    overlap: int

    @property
    def boxes(self) -> list[Box]:
        """(left, upper, right, lower) of each, line by line."""
        width, height = self.size
        return [
            (left, upper, min(left + self.tile, width), min(upper + self.tile, height))
            for upper in self._starts(height)
            for left in self._starts(width)
        ]

    def _starts(self, length: int) -> Iterator[int]:
        start = 0
        while start + self.tile < length:
            yield start
            start += self.tile - self.overlap
        # The last one ends at the edge, and shares more with the one before.
        yield max(0, length - self.tile)


def tiles_of(size: tuple[int, int], native_size: int | None) -> Tiling:
    """The tiles of a picture that becomes ``size`` = (width, height) in pixels, by a
    model that works at ``native_size`` (None: any). They cover what lies on the grid,
    which may be some pixels more."""
    width, height = (side + -side % GRID for side in size)
    side = _side(max(width, height), native_size)
    return Tiling((width, height), side, max(_LEAST_SHARED, side // _SHARED))


def _side(longest: int, native_size: int | None) -> int:
    """It is the model's own, where it has one; but a small model's tiles, which are
    drawn at its size and scaled, may be larger, or there were thousands of them."""
    if native_size is None:
        return LARGEST
    needed = -(-longest // _MOST_ACROSS)
    return max(native_size, needed + -needed % GRID)
