"""The sizes that a model draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flux_api.errors import InvalidRequest

SIDE_BOUNDS = 16, 8192
"""No model's grid goes beyond these pixels."""


@dataclass(frozen=True, slots=True)
class SizeRules:
    """The sizes that may be asked for, in pixels: each side a multiple of ``multiple``
    from ``minimum`` to ``maximum``, and at most ``max_pixels`` in all."""

    multiple: int = 16
    minimum: int = 64
    maximum: int = 2048
    default: tuple[int, int] = (1024, 1024)
    max_pixels: int = 2048 * 2048

    def __str__(self) -> str:
        text = f"multiples of {self.multiple} from {self.minimum} to {self.maximum}"
        if self.max_pixels < self.maximum**2:
            text += f", {self.max_pixels / 1e6:.1f} megapixels in all at most"
        return text

    def allows(self, side: int) -> bool:
        """Whether ``side`` pixels lie on the grid."""
        return self.minimum <= side <= self.maximum and side % self.multiple == 0

    def fit(self, size: tuple[int, int]) -> tuple[int, int]:
        """The legal size nearest to ``size`` = (width, height) in shape and area."""
        width, height = size
        scale = min(1.0, self.maximum / max(width, height))
        scale = min(scale, math.sqrt(self.max_pixels / (width * height)))
        # A thin picture is widened; by a bound, as one of a pixel would be endless.
        scale = max(scale, min(self.minimum / min(width, height), 1e4))
        fitted = [self._snap(width * scale), self._snap(height * scale)]
        # Rounding both sides up can pass the limit; a very long picture too.
        while fitted[0] * fitted[1] > self.max_pixels:
            fitted[fitted.index(max(fitted))] -= self.multiple
        return fitted[0], fitted[1]

    def choose(
        self,
        default: tuple[int, int],
        asked: tuple[int | None, int | None],
        param: str | None,
    ) -> tuple[int, int]:
        """(width, height) in pixels, what was not ``asked`` for by ``default``.
        InvalidRequest tells the grid; ``param`` is what the caller calls a size, None
        where width and height are parameters of their own."""
        width = default[0] if asked[0] is None else asked[0]
        height = default[1] if asked[1] is None else asked[1]
        near = "{}x{}".format(*self.fit((max(1, width), max(1, height))))
        for side, own in zip(asked, ("width", "height"), strict=True):
            if side is not None and not self.allows(side):
                both = "x".join("?" if one is None else str(one) for one in asked)
                raise self._illegal(param or own, both if param else str(side), near)
        if width * height > self.max_pixels:
            raise self._illegal(param or "width", f"{width}x{height}", near)
        return width, height

    def _illegal(self, param: str, got: str, near: str) -> InvalidRequest:
        message = (
            f"Invalid {param} '{got}'. Width and height must be {self}; try {near}."
        )
        return InvalidRequest(message, param=param)

    def _snap(self, side: float) -> int:
        snapped = round(side / self.multiple) * self.multiple
        low = math.ceil(self.minimum / self.multiple) * self.multiple
        return max(low, min(snapped, self.maximum // self.multiple * self.multiple))
