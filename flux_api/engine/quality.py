"""How near the pictures of one FLUX_PERFORMANCE come to those of ``exact``: eight fixed
requests, drawn both ways."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import conv2d

from flux_api.core import ImageRequest, Performance
from flux_api.engine.verdicts import Verdicts
from flux_api.engine.warm_up import warm_up_request
from flux_api.models.info import ModelInfo

logger = logging.getLogger(__name__)

# Of people, of things, of words, of much and of little detail.
PROMPTS = (
    "a red heart",
    "a yellow sun over a blue sea",
    "a portrait of an old fisherman, studio light",
    "a cat that sleeps on a green sofa",
    "a street in Tokyo at night in the rain",
    "a bowl of strawberries on a wooden table",
    'a shop sign that says "OPEN"',
    "a white lighthouse on a cliff, watercolour",
)
SIDE = 512

# Means of at least so many dB of PSNR, and so much SSIM.
GATES: dict[Performance, tuple[float, float]] = {
    "speed": (35.0, 0.98),
    "max": (20.0, 0.80),
}
# Of SSIM: Wang et al., "Image quality assessment", 2004.
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
# Two times of the same differ by as much on a busy machine.
_NOISE = 0.2
# Equal pictures have no noise at all; a mean needs a number.
MOST_PSNR = 100.0
NOTHING = "it changes nothing here"

Pixels = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the pictures: ``psnr`` in dB (``MOST_PSNR``: equal), ``ssim`` up to 1,
    and the seconds a picture took ``exact`` and so."""

    psnr: float
    ssim: float
    exact_seconds: float
    seconds: float

    def refusal(self, level: Performance) -> str:
        """Why ``level`` is not to be used; empty where it is good."""
        psnr, ssim = GATES[level]
        if self.psnr < psnr or self.ssim < ssim:
            return f"it is too far from exact, at least {psnr:g} dB and {ssim:g}"
        # Its pictures share no forwards: it costs time, so it has to bring something.
        if level == "max" and self.psnr == MOST_PSNR:
            return NOTHING
        slower = self.seconds > self.exact_seconds * (1 + _NOISE)
        return "it is slower than exact" if slower else ""

    def is_fault(self, level: Performance) -> bool:
        """Whether it is refused for what it does, and not because it does nothing."""
        return self.refusal(level) not in ("", NOTHING)

    def __str__(self) -> str:
        return (
            f"PSNR {self.psnr:.1f} dB, SSIM {self.ssim:.3f}, {self.seconds:.2f} s a "
            f"picture against {self.exact_seconds:.2f}"
        )


class QualityGate:
    """Which levels sets may be drawn with, by the ``verdicts`` on them."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts

    def allowed(
        self, wanted: Performance, name: str, info: ModelInfo
    ) -> tuple[Performance, tuple[str, ...]]:
        """The level for the set ``name`` where the server is told ``wanted``, and
        sentences on why it is another."""
        notes: list[str] = []
        for level in ("max", "speed"):
            if level == "max" and wanted != "max" or wanted == "exact":
                continue
            verdict = self._verdicts.find(level, _key(name, info))
            if verdict is None and level == "max":
                notes.append(
                    f"whether max is good enough for {name} is not known: run "
                    f"'flux-api quality --model {name}'"
                )
            elif verdict is not None and verdict["refusal"]:
                why = f"{verdict['refusal']} ({verdict['found']})"
                notes.append(f"{level} is not used for {name}: {why}")
            else:
                return level, tuple(notes)
        return "exact", tuple(notes)

    def knows(self, level: Performance, name: str, info: ModelInfo) -> bool:
        """Whether there is a verdict on ``level`` for the set ``name``."""
        return self._verdicts.find(level, _key(name, info)) is not None

    def judge(
        self,
        levels: Sequence[Performance],
        name: str,
        info: ModelInfo,
        draw: Callable[[Performance], tuple[list[Pixels], float]],
    ) -> dict[Performance, Quality]:
        """How near each of ``levels`` comes to exact pictures of the set ``name``, by
        what ``draw`` returns: the pictures, and the seconds of one. It is kept."""
        found: dict[Performance, Quality] = {}
        exact, exact_seconds = draw("exact")
        for level in levels:
            others, seconds = draw(level)
            quality = Quality(*compare(exact, others), exact_seconds, seconds)
            logger.info("%s of %s: %s", level, name, quality)
            self.keep(level, name, info, quality)
            found[level] = quality
        return found

    def keep(
        self, level: Performance, name: str, info: ModelInfo, quality: Quality
    ) -> None:
        """Remember what was found."""
        verdict = {"refusal": quality.refusal(level), "found": str(quality)}
        self._verdicts.keep(level, _key(name, info), verdict)


def _key(name: str, info: ModelInfo) -> str:
    return f"{name} ({info.base_model})"


def quality_requests(name: str, info: ModelInfo) -> list[ImageRequest]:
    """The requests to the set ``name``: 512x512, or the size that it works at where
    that is smaller, with its own number of steps."""
    first = warm_up_request(name, info)
    task = next(iter(info.tasks.values()))
    side = min(SIDE, info.native_size or SIDE)
    return [
        replace(
            first,
            prompt=prompt,
            seed=seed,
            width=side,
            height=side,
            num_inference_steps=task.num_inference_steps,
        )
        for seed, prompt in enumerate(PROMPTS)
    ]


def draw_timed(
    draw: Callable[[ImageRequest], Pixels],
    requests: Sequence[ImageRequest],
    clock: Callable[[], float],
) -> tuple[list[Pixels], float]:
    """The pictures of ``requests``, and the least seconds by ``clock`` that one of them
    took: the first compiles, and others on this machine only ever add to it."""
    pictures, seconds = [], []
    for request in requests:
        began = clock()
        pictures.append(draw(request))
        seconds.append(clock() - began)
    return pictures, min(seconds)


def compare(exact: Sequence[Pixels], others: Sequence[Pixels]) -> tuple[float, float]:
    """The mean PSNR in dB and the mean SSIM of uint8 (height, width, 3) pictures."""
    pairs = list(zip(exact, others, strict=True))
    psnrs = [psnr(*pair) for pair in pairs]
    ssims = [ssim(*pair) for pair in pairs]
    return float(np.mean(psnrs)), float(np.mean(ssims))


def psnr(one: Pixels, other: Pixels) -> float:
    """The peak signal-to-noise ratio in dB, at most ``MOST_PSNR``."""
    error = float(np.mean((one.astype(float) - other) ** 2))
    return min(MOST_PSNR, 10 * float(np.log10(255**2 / error))) if error else MOST_PSNR


def ssim(one: Pixels, other: Pixels) -> float:
    """The mean structural similarity of the two, over colours, in Gaussian windows."""
    x, y = (torch.from_numpy(p.astype(np.float64)).movedim(-1, 0) for p in (one, other))
    x, y = x[:, None], y[:, None]
    axis = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    bell = torch.exp(-(axis**2) / (2 * _SIGMA**2))
    window = torch.outer(bell, bell)[None, None] / bell.sum() ** 2

    def mean(values: torch.Tensor) -> torch.Tensor:
        return conv2d(values, window)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    similar = (2 * mx * my + _C1) * (2 * cov + _C2)
    similar /= (mx**2 + my**2 + _C1) * (vx + vy + _C2)
    return float(similar.mean())
