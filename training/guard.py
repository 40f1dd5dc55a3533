"""Keeps a broken gradient out of the weights."""

from __future__ import annotations

import math

PATIENCE = 30


class GradientGuard:
    """Counts the steps in a row whose gradient norm was not finite.

    One step with such a gradient writes NaN into every weight, and the averages and
    the export follow. All ranks see the same averaged gradient, so all of them
    decide alike.
    """

    def __init__(self) -> None:
        """Start with nothing skipped."""
        self.in_a_row = self.skipped = 0

    def allows(self, norm: float) -> bool:
        """Return whether the optimizer may step; stop the run if it never may."""
        if math.isfinite(norm):
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        self.skipped += 1
        if self.in_a_row >= PATIENCE:
            raise SystemExit(
                f"The gradients of {PATIENCE} steps in a row were not finite. The "
                "saved state is the last good one. Try --no-compile, or another "
                "version of torch."
            )
        return False
