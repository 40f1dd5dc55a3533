"""Time budgets that a pause does not eat, and the learning rate that follows them."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from types import FrameType

from training.ranks import agree

LONGEST_STEP = 20.0


@dataclass
class Clock:
    """Counts the seconds that training was really running."""

    budget: float
    spent: float = 0.0
    _last: float = field(default_factory=time.monotonic)

    def tick(self) -> float:
        """Count the time since the last tick and return the share of the budget spent.

        A step longer than LONGEST_STEP means that the process was stopped meanwhile.
        """
        now = time.monotonic()
        self.spent = agree(self.spent + min(now - self._last, LONGEST_STEP))
        self._last = now
        return self.spent / self.budget


def learning_rate(peak: float, step: int, share: float, decay: float) -> float:
    """Return the rate: a short warm-up, a plateau, then linearly down to nothing."""
    warm = min(1.0, (step + 1) / 100)
    falling = min(1.0, max(0.0, 1 - share) / decay)
    return peak * warm * max(falling, 0.005)


class StopFlag:
    """Raised by SIGTERM or SIGINT; training then saves its state and ends."""

    raised = False

    def __enter__(self) -> StopFlag:
        """Take over both signals."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._before = {n: signal.signal(n, self._raise) for n in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        """Give both signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Return whether the first rank was asked to stop."""
        return bool(agree(float(self.raised)))

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.raised = True
