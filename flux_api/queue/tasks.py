"""One picture of a job, and what makes it: between the manager and its backend."""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from flux_api.core import (
    ImageRequest,
    ImageResult,
    PartialImage,
    Preview,
    Progress,
)
from flux_api.metrics.instruments import STEP
from flux_api.queue.jobs import Job
from flux_api.queue.loading_life import LoadingLife

logger = logging.getLogger(__name__)

# One odd picture moves the average little; ten of another model make up 89 % of it.
_NEWEST = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What a backend is asked to make, as data: picture ``index`` of ``request``, which
    belongs to the job ``job_id``."""

    request: ImageRequest
    index: int
    job_id: str

    @property
    def seed(self) -> int:
        """The seed of this picture."""
        return self.request.seed_of(self.index)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a backend calls while it makes a picture: plain functions over plain values,
    so that it may run in another process. ``check`` and ``on_step(step, total)`` raise
    Cancelled when nobody waits any more; ``on_preview(number, preview)`` shows one;
    ``on_loading(True)`` and, afterwards, ``on_loading(False)`` say that weights are
    loaded meanwhile: bytes that this thread reads are then its signs of life."""

    check: Callable[[], None]
    on_step: Callable[[int, int], None]
    on_preview: Callable[[int, Preview], None]
    on_loading: Callable[[bool], None]


@dataclass(eq=False, slots=True)
class PictureTask:
    """One picture of a job; ``request`` is the job's, whole for as long as the picture
    is made, ``tokens`` what a step of it costs, ``beat`` its last sign of life in
    monotonic seconds, ``step`` of ``total`` the newest step that is done, at
    ``stepped``, ``loaded`` how many seconds went into loading weights for it;
    ``interleaved`` says that it runs beside those that fill the forwards."""

    job: Job
    index: int
    request: ImageRequest
    tokens: int
    beat: float = 0.0
    step: int = 0
    total: int | None = None
    stepped: float = 0.0
    loaded: float = 0.0
    interleaved: bool = False
    life: LoadingLife | None = None

    @property
    def steps_left(self) -> int:
        """About how many steps are left to do."""
        # Once it has begun, diffusers' own total is known.
        return (self.total or self.request.total_steps) - self.step

    def on_step(self, step: int, total: int) -> None:
        """Note step ``step`` of ``total``; Cancelled when the job has ended or nobody
        waits for it any more."""
        # A picture's first step begins with a sign of life, the others where the one
        # before ended: several may come within one.
        began = self.stepped if step > 1 else self.beat
        self.check()
        STEP.observe(self.beat - began)
        self.stepped = self.beat
        self.step, self.total = step, total
        self.job.post(Progress(self.index, step, total))

    def on_preview(self, number: int, preview: Preview) -> None:
        """Show ``preview``, the one of this ``number``, to whoever watches."""
        self.job.post(PartialImage(self.index, number, preview))

    def on_loading(self, begins: bool) -> None:
        """While weights are loaded, bytes are signs of life."""
        now = time.monotonic()
        self.loaded += -now if begins else now
        self.beat = now
        self.life = LoadingLife() if begins else None

    @property
    def last_beat(self) -> float:
        """When it last showed life, in monotonic seconds."""
        life = self.life
        return self.beat if life is None else max(self.beat, life.last_sign())

    @property
    def picture(self) -> Picture:
        """What the backend is asked to make."""
        return Picture(self.request, self.index, self.job.id)

    @property
    def callbacks(self) -> Callbacks:
        """What the backend calls meanwhile."""
        return Callbacks(self.check, self.on_step, self.on_preview, self.on_loading)

    def check(self) -> None:
        """Show life; Cancelled when the job has ended or nobody waits any more."""
        self.beat = time.monotonic()
        self.job.check()


class WorkPace:
    """Moving average of seconds per step and token, for Retry-After."""

    def __init__(self) -> None:
        self._seconds: float | None = None

    def learn(self, work: int, seconds: float) -> None:
        """``work`` was done in ``seconds``."""
        # A picture that failed before its first step says nothing of the pace.
        if work > 0:
            newest = seconds / work
            # From 0 on it would take many pictures to come near the truth.
            average = newest if self._seconds is None else self._seconds
            self._seconds = average + _NEWEST * (newest - average)

    def seconds_of(self, work: int, *, at_once: int) -> float:
        """About how many seconds ``work`` takes while ``at_once`` pictures are made at
        the same time; 0 as long as nothing was measured."""
        return work * (self._seconds or 0.0) / max(1, at_once)


class BackendBroken(Exception):
    """The device is lost to this process; only a new process can go on."""


Kept = Literal["host", "dropped"]
"""What becomes of weights that leave the device: they wait in the host's memory, or are
loaded anew."""


class Backend(Protocol):
    """What makes pictures; see :class:`flux_api.engine.backend.DiffusersBackend`."""

    @property
    def memory(self) -> dict[str, int] | None:
        """Bytes ``used`` of the device's ``total`` after the last picture, where it has
        memory of its own."""

    @property
    def performance(self) -> dict[str, str]:
        """How pictures of the default set are made (``performance``), and why not as
        the server was told (``performance_note``); asked after ``load``."""

    @property
    def asleep(self) -> Kept | None:
        """How weights are kept while none is on the device, None while some are; asked
        after ``load``."""

    @property
    def outage(self) -> str | None:
        """Why nothing can be drawn for now, None while it can; asked after ``load``."""

    def sleep(self, kept: Kept | None = None) -> None:
        """Have all weights leave the device, to be ``kept`` so, None for as there is
        room; called while no picture is on its way. The next one has them come back.
        InvalidRequest where they cannot be kept so."""

    @property
    def slots(self) -> int:
        """How many pictures may share forwards at once; asked after ``load``."""

    @property
    def batch_tokens(self) -> int:
        """Most tokens of pictures that share a forward, 0 where none do; asked after
        ``load``."""

    def load(self, report: Callable[[str], None]) -> None:
        """Get ready, telling ``report`` what is going on; raises when it cannot."""

    def joins(self, request: ImageRequest, running: Sequence[ImageRequest]) -> bool:
        """Whether a picture of ``request`` may be on its way together with those that
        are ``running``, sharing forwards with them or taking turns."""

    def fits(self, request: ImageRequest, running: Sequence[ImageRequest]) -> bool:
        """Whether there is room for it in their forwards."""

    def is_warm(self, request: ImageRequest) -> bool:
        """Whether a picture of ``request`` needs no weights or LoRAs other than those
        that the newest picture has."""

    def tokens(self, request: ImageRequest) -> int:
        """About how much a step of one picture costs, in tokens."""

    def prepare(self, request: ImageRequest) -> None:
        """Do what can be done for ``request`` before its turn comes; called by the
        thread that submits it."""

    def run(self, picture: Picture, callbacks: Callbacks) -> ImageResult:
        """Make ``picture``, calling ``check`` or ``on_step`` at each step."""


def log_failure(error: BaseException, task: PictureTask) -> None:
    """The traceback, with no prompt in its messages: some libraries quote what they
    were given."""
    prompts = (task.request.prompt, task.request.negative_prompt)
    # Only messages are searched: a prompt may be "x", and frames must stay readable.
    chain = [traceback.TracebackException.from_exception(error)]
    while (earlier := _earlier(chain[-1])) is not None:
        chain.append(earlier)
    texts = []
    for one in reversed(chain):
        # The exception's name, which holds no space, ends at the first ": ".
        name, colon, message = "".join(one.format_exception_only()).partition(": ")
        message = _without([prompt for prompt in prompts if prompt], message)
        frames = "".join(["Traceback (most recent call last):\n", *one.stack.format()])
        texts.append(frames + name + colon + message)
    logger.error("job %s failed: %s", task.job.id, "\nwhich led to\n\n".join(texts))


def _earlier(one: traceback.TracebackException) -> traceback.TracebackException | None:
    if one.__cause__ is not None or one.__suppress_context__:
        return one.__cause__
    return one.__context__


def _without(prompts: Sequence[str], message: str) -> str:
    # A KeyError's message is the repr of its key; json and others escape to ASCII.
    forms = {
        form
        for prompt in prompts
        for form in (prompt, repr(prompt)[1:-1], ascii(prompt)[1:-1])
    }
    # One pass, the longest first: one prompt may be a part of the other.
    patterns = map(_pattern_of, sorted(forms, key=len, reverse=True))
    return re.sub("|".join(patterns), "<prompt>", message) if forms else message


def _pattern_of(form: str) -> str:
    # The prompt "cat" is not in "allocate"; one of more than a word is found anywhere,
    # and so is one in a script that has no spaces.
    if form.isascii() and form.isalnum():
        return rf"(?<![A-Za-z0-9]){form}(?![A-Za-z0-9])"
    return re.escape(form)
