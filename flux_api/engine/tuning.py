"""Makes a transformer faster where FLUX_PERFORMANCE allows it: tried and timed on a
forward of the first picture, and kept only where it is faster."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch

from flux_api.core import Performance
from flux_api.engine.trial import Trial, is_faster
from flux_api.engine.verdicts import Verdicts
from flux_api.loading.attention import NATIVE, attention_ways, set_attention
from flux_api.loading.compiling import (
    compile_block,
    compile_blocks,
    leave_plain,
    plain,
    prepare_thread,
)
from flux_api.loading.device import free_memory
from flux_api.loading.model_sets import Loaded

logger = logging.getLogger(__name__)

_COMPILING = "compiling"

Forward = Callable[..., Any]


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """How a transformer runs: its ``level``, sentences on what could not be done, and
    what runs it where its compiled blocks cannot."""

    level: Performance = "exact"
    notes: tuple[str, ...] = ()
    plain: Forward | None = None


@dataclass(frozen=True, slots=True)
class Aim:
    """The ``level`` that the base ``name`` is to run at, and sentences on why it is not
    the one that the server was told."""

    name: str
    level: Performance
    notes: tuple[str, ...] = ()


def _why(error: Exception) -> str:
    """What is to be done about ``error``, without the paths in its message."""
    missing = {"InvalidCxxCompiler": "there is no g++", "TritonMissing": "no Triton"}
    found = (text for name, text in missing.items() if name in repr(error))
    return next(found, type(error).__name__)


class Tuner:
    """Tunes each transformer once, on ``device``, and keeps in ``verdicts`` what did
    not pay. ``compiler`` is torch.compile's backend; ``is_worth_it`` compares the
    seconds before and after."""

    def __init__(
        self,
        wanted: Performance,
        device: torch.device,
        *,
        verdicts: Verdicts | None = None,
        compiler: str = "inductor",
        is_worth_it: Callable[[float, float], bool] | None = None,
    ) -> None:
        self.wanted, self._device, self._compiler = wanted, device, compiler
        self.verdicts = verdicts or Verdicts(None, device)
        self._is_worth_it = is_worth_it or is_faster
        self._tuned: WeakKeyDictionary[torch.nn.Module, Tuned] = WeakKeyDictionary()
        self._compiles = False
        self.newest = Tuned()

    def find(self, transformer: torch.nn.Module) -> Tuned | None:
        """How ``transformer`` runs; None before it has been tuned."""
        return Tuned() if self.wanted == "exact" else self._tuned.get(transformer)

    def forward(self, transformer: torch.nn.Module, *, with_loras: bool) -> Forward:
        """What runs a step of a picture."""
        tuned = self.find(transformer)
        if with_loras and tuned is not None and tuned.plain is not None:
            return tuned.plain
        return transformer

    def prepare_thread(self) -> None:
        """Call it in each thread that makes a picture."""
        if self._compiles:
            prepare_thread(forgiving=True)

    def tune(
        self,
        aim: Aim,
        loaded: Loaded,
        kwargs: Mapping[str, Any],
        show_life: Callable[[], None],
    ) -> Tuned:
        """Make the transformer of ``loaded`` as fast as ``aim`` allows, judged by a
        forward of it with ``kwargs``."""
        transformer = loaded.pipeline.transformer
        if aim.level == "exact":
            tuned = Tuned()
        elif loaded.placement.offloads:
            tuned = Tuned(notes=("weights that are moved about are not compiled",))
        else:
            tuned = self._tune(aim.name, transformer, kwargs, show_life)
        tuned = replace(tuned, notes=aim.notes + tuned.notes)
        for note in tuned.notes:
            logger.warning(note)
        self._tuned[transformer] = self.newest = tuned
        return tuned

    def _tune(
        self,
        name: str,
        transformer: torch.nn.Module,
        kwargs: Mapping[str, Any],
        show_life: Callable[[], None],
    ) -> Tuned:
        notes: list[str] = []
        quicker = compiled = False
        try:
            trial = Trial(name, transformer, kwargs, show_life)
            quicker = self._choose_attention(trial)
            compiled = self._compile(trial, notes)
        except torch.OutOfMemoryError:
            notes.append("no memory to compile in: blocks stay plain")
        # Whatever a compiler raises: without one the server is slower, not gone.
        except Exception as error:
            logger.warning("compiling failed", exc_info=True)
            notes.append(f"nothing compiles here ({_why(error)}): blocks stay plain")
        if compiled:
            self._compiles = True
            prepare_thread(forgiving=True)
        else:
            leave_plain(transformer)
            free_memory()
        level: Performance = "speed" if quicker or compiled else "exact"
        return Tuned(level, tuple(notes), plain(transformer) if compiled else None)

    def _choose_attention(self, trial: Trial) -> bool:
        """Take the quickest way to compute attention; whether it is not torch's own
        choice."""
        ways = attention_ways(self._device)
        if len(ways) == 1:
            return False
        seconds: dict[str, float] = {}
        for way in ways:
            # A package that is not installed, or that does not know this card.
            with contextlib.suppress(ImportError, RuntimeError, ValueError):
                set_attention(trial.transformer, way)
                seconds[way] = trial.seconds()
        best = min(seconds, key=lambda way: seconds[way], default=NATIVE)
        if best == NATIVE or not self._is_worth_it(seconds[NATIVE], seconds[best]):
            best = NATIVE
        set_attention(trial.transformer, best)
        logger.info("attention by %s", best)
        return best != NATIVE

    def _compile(self, trial: Trial, notes: list[str]) -> bool:
        """Whether compiled blocks are faster; they are left compiled."""
        if (known := self.verdicts.find(_COMPILING, trial.name)) is not None:
            notes.append(known["note"])
            return False
        before = trial.seconds()
        prepare_thread(forgiving=False)
        # One is soon compiled, all of them are not.
        compile_block(trial.block, self._compiler)
        after = trial.seconds()
        if not self._is_worth_it(before, after):
            note = (
                f"a compiled block takes {after * 1000:.2f} ms and a plain one "
                f"{before * 1000:.2f} ms: blocks stay plain"
            )
            notes.append(note)
            self.verdicts.keep(_COMPILING, trial.name, {"note": note})
            return False
        compile_blocks(trial.transformer, self._compiler)
        # The first forward, and the first that pictures share, would compile in
        # somebody's time.
        trial.run(1)
        trial.run(2)
        return True
