"""Makes a transformer faster where FLUX_PERFORMANCE allows it: tried and timed on a
forward of the first picture, and kept only where it is faster."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from flux_api.core import Performance
from flux_api.engine.step_cache import FAMILIES, LEAST_STEPS, StepCache
from flux_api.engine.trial import Trial, is_faster, repeated_blocks
from flux_api.engine.vae_tuning import tune_vae
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
from flux_api.loading.fp8 import Originals, has_fp8, restore, to_fp8
from flux_api.loading.loaded_set import Loaded
from flux_api.loading.lora_room import close_room, make_room, room_in

logger = logging.getLogger(__name__)

_COMPILING = "compiling"

Forward = Callable[..., Any]


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """How a transformer runs: its ``level``, sentences on what could not be done, what
    runs it where its compiled blocks cannot, and what leaves out steps."""

    level: Performance = "exact"
    notes: tuple[str, ...] = ()
    plain: Forward | None = None
    step_cache: StepCache | None = None


@dataclass(frozen=True, slots=True)
class Aim:
    """The ``level`` that the base ``name`` is to run at, and sentences on why it is not
    the one that the server was told."""

    name: str
    level: Performance
    notes: tuple[str, ...] = ()


def _why(error: Exception) -> tuple[str, str]:
    """What ``error`` comes to without the paths in its message, and what is missing for
    whatever is compiled, if that is it."""
    missing = {
        "InvalidCxxCompiler": "there is no g++",
        "TritonMissing": "no Triton",
        # Triton's own, of what calls its kernels.
        "Failed to find C compiler": "there is no gcc",
        "cuda_utils.c": "gcc fails, perhaps for want of Python's headers",
    }
    lacks = next((text for name, text in missing.items() if name in repr(error)), "")
    return lacks or type(error).__name__, lacks


def _nothing_compiles(why: str) -> str:
    return f"nothing compiles here ({why}): blocks stay plain"


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
        compiler: str | Forward = "inductor",
        is_worth_it: Callable[[float, float], bool] | None = None,
    ) -> None:
        self.wanted, self._device, self._compiler = wanted, device, compiler
        self.verdicts = verdicts or Verdicts(None, device)
        self._is_worth_it = is_worth_it or is_faster
        self._compiles = False
        self._lacks = ""
        self.newest = Tuned()
        self.shares = True
        """Whether pictures share forwards, so that those have to be compiled, too."""

    def find(self, transformer: torch.nn.Module) -> Tuned | None:
        """How ``transformer`` runs; None before it has been tuned."""
        if self.wanted == "exact":
            return Tuned()
        return getattr(transformer, "tuned", None)

    def step_cache(self, transformer: torch.nn.Module, steps: int) -> StepCache | None:
        """What leaves out some of so many ``steps``."""
        tuned = self.find(transformer)
        return tuned.step_cache if tuned is not None and steps >= LEAST_STEPS else None

    def forward(self, transformer: torch.nn.Module) -> Forward:
        """What runs a step of a picture with the LoRAs that are on."""
        room, tuned = room_in(transformer), self.find(transformer)
        if room is not None and room.overflows and tuned is not None:
            return tuned.plain or transformer
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
            trial = Trial(aim.name, transformer, kwargs, show_life)
            quicker = self._tune_vae(loaded.pipeline.vae, show_life)
            tuned = self._tune(trial, aim.level)
            if quicker and tuned.level == "exact":
                tuned = replace(tuned, level="speed")
        tuned = replace(tuned, notes=aim.notes + tuned.notes)
        for note in tuned.notes:
            logger.warning(note)
        # At the transformer, which it refers to: so they go together.
        transformer.tuned = tuned
        self.newest = replace(tuned, plain=None, step_cache=None)
        return tuned

    def _tune_vae(self, vae: Any, show_life: Callable[[], None]) -> bool:
        try:
            return tune_vae(vae, self._device, self._is_worth_it, show_life)
        # Whatever a library raises: it decodes as before.
        except Exception as error:
            logger.warning("the VAE stays as it is", exc_info=error)
            return False

    def _tune(self, trial: Trial, wanted: Performance) -> Tuned:
        transformer, notes = trial.transformer, list[str]()
        quicker = compiled = shorter = False
        try:
            quicker = self._choose_attention(trial)
            if self._may_compile(trial, notes):
                shorter = self._compile(trial, wanted, notes)
                compiled = True
        # Whatever a compiler raises: without one the server is slower, not gone.
        except Exception as error:
            notes.append(self._note_failure(error))
        if compiled:
            self._compiles = True
            prepare_thread(forgiving=True)
        else:
            leave_plain(transformer)
            close_room(transformer)
            free_memory()
        level: Performance = "speed" if quicker or compiled else "exact"
        cache = None
        if wanted == "max" and type(transformer).__name__ in FAMILIES:
            cache = StepCache(transformer)
        if shorter or cache is not None:
            level = "max"
        run_plain = plain(transformer) if compiled else None
        return Tuned(level, tuple(notes), run_plain, cache)

    def _note_failure(self, error: Exception) -> str:
        """What ``error`` means for blocks that were to be compiled."""
        if isinstance(error, torch.OutOfMemoryError):
            return "no memory to compile in: blocks stay plain"
        logger.warning("compiling failed", exc_info=error)
        why, self._lacks = _why(error)
        return _nothing_compiles(why)

    def _choose_attention(self, trial: Trial) -> bool:
        """Take the quickest way to compute attention; whether it is not torch's own
        choice."""
        ways = attention_ways(self._device)
        if len(ways) == 1:
            return False
        seconds: dict[str, float] = {}
        best = NATIVE
        try:
            for way in ways:
                # A package that is not installed, or that does not know this card.
                with contextlib.suppress(ImportError, RuntimeError, ValueError):
                    set_attention(trial.transformer, way)
                    seconds[way] = trial.seconds()
            quickest = min(seconds, key=lambda way: seconds[way], default=NATIVE)
            before, after = (seconds.get(w, math.inf) for w in (NATIVE, quickest))
            if quickest != NATIVE and self._is_worth_it(before, after):
                best = quickest
        finally:
            # Whatever else one raises, it is none to draw with.
            set_attention(trial.transformer, best)
        logger.info("attention by %s", best)
        return best != NATIVE

    def _may_compile(self, trial: Trial, notes: list[str]) -> bool:
        """Whether a compiled block is faster, and so left compiled."""
        if (known := self.verdicts.find(_COMPILING, trial.name)) is not None:
            notes.append(known["note"])
            return False
        if self._lacks:
            notes.append(_nothing_compiles(self._lacks))
            return False
        before = trial.seconds()
        prepare_thread(forgiving=False)
        # Before they are compiled, so that they look for LoRAs there.
        make_room(trial.transformer, repeated_blocks(trial.transformer))
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
        return True

    def _compile(self, trial: Trial, wanted: Performance, notes: list[str]) -> bool:
        """Compile all blocks; whether they are in 8-bit floats, too."""
        # Before: what changes in a layer compiles its block anew.
        originals = self._shorten_one(trial, notes) if wanted == "max" else []
        try:
            if originals:
                for block in repeated_blocks(trial.transformer):
                    originals += to_fp8(block)
                free_memory()
            compile_blocks(trial.transformer, self._compiler)
            self._compile_now(trial)
        except BaseException:
            restore(originals)
            raise
        return bool(originals)

    def _shorten_one(self, trial: Trial, notes: list[str]) -> Originals:
        """What was changed in a block that is faster still in 8-bit floats; nothing
        where it is not."""
        if not has_fp8(self._device):
            notes.append("this device has no 8-bit floats: layers stay whole")
            return []
        before = trial.seconds()
        originals = to_fp8(trial.block)
        try:
            # The first call compiles it once more.
            after = trial.seconds()
        except Exception as error:
            restore(originals)
            if isinstance(error, torch.OutOfMemoryError):
                notes.append("no memory to try 8-bit floats in")
            else:
                logger.warning("8-bit floats failed", exc_info=error)
                notes.append(f"8-bit floats fail here ({_why(error)[0]})")
            return []
        if not originals or not self._is_worth_it(before, after):
            restore(originals)
            notes.append(
                f"a block in 8-bit floats takes {after * 1000:.2f} ms and a whole one "
                f"{before * 1000:.2f} ms: layers stay whole"
            )
            return []
        return originals

    def _compile_now(self, trial: Trial) -> None:
        """Compile what would else be compiled in somebody's time: the first forward,
        the first that pictures share, and both with LoRAs."""
        room = room_in(trial.transformer)
        assert room is not None
        try:
            for hold in (room.clear, room.hold_zeros):
                hold()
                for pictures in (1, 2) if self.shares else (1,):
                    trial.run(pictures)
        finally:
            room.clear()
