"""Pictures of strangers, decoded in processes that may crash: ``decode_child.py``."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import PIL
from PIL import Image

from flux_api.errors import InvalidImage, Unavailable
from flux_api.images.decode_child import ALPHA, GREY, HEADER, IMAGE, MASK, REFUSED, RGB

logger = logging.getLogger(__name__)

MOST_PIXELS = 2048 * 2048
"""No model draws or looks at more: larger pictures are given back at this size."""

CHILDREN = 2
# What an exploited child could see of others' pictures ends here.
_RECYCLE_AFTER = 100
# Under load a good picture may take seconds; its CPU time has a limit of its own.
_WALL_SECONDS = 30.0
_ROOM_SECONDS = 5.0
_PIPE_BYTES = 1 << 20
_CHANNELS = {GREY: 1, ALPHA: 1, RGB: 3}
# How far a mask's shape may be from its picture's: rounding of a small preview.
_MASK_SHAPE = 0.02
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II", b"MM")
_FAILED = "cannot be decoded: it is damaged, or costs more than a picture may"


class Decoder:
    """Decodes files, a few at once. All pictures that it gave away and that are still
    in use take at most ``most_bytes``; beyond it others wait a little, then
    Unavailable. Children start at the first use, in the process that uses them."""

    def __init__(self, most_bytes: int = 512 << 20) -> None:
        self._room = _Room(most_bytes)
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(CHILDREN):
            self._idle.put(None)
        weakref.finalize(self, _end, self._idle)

    def image(self, data: bytes, *, param: str = "image") -> Image.Image:
        """The first frame in RGB: turned as EXIF says, in sRGB, alpha laid over white,
        at most ``MOST_PIXELS``. InvalidImage names ``param``."""
        return self._decode(data, IMAGE, param)[1]

    def mask(
        self, data: bytes, *, size: tuple[int, int], param: str = "mask"
    ) -> tuple[Image.Image, list[str]]:
        """The area to repaint in mode L, of ``size``: white where the mask's alpha is
        0, black where it is 255, the grey between for a soft edge; a mask without alpha
        is white there itself. And sentences on what was done to it."""
        kind, mask = self._decode(data, MASK, param)
        notes = []
        if kind == ALPHA:
            mask = mask.point(range(255, -1, -1))
        else:
            notes.append(
                f"The {param} has no alpha channel: its white area is repainted."
            )
            # JPEG's black is not quite black, and would be repainted a little.
            mask = mask.point([0] * 16 + [*range(16, 240)] + [255] * 16)
        if mask.size != size:
            own, wanted = "{}x{}".format(*mask.size), "{}x{}".format(*size)
            if abs(mask.width * size[1] / (mask.height * size[0]) - 1) > _MASK_SHAPE:
                raise InvalidImage(
                    f"{param} is {own} but the image is {wanted}; they must have the "
                    "same shape",
                    param=param,
                    code="invalid_mask_image_format",
                )
            notes.append(f"The {param} was scaled from {own} to {wanted}.")
            mask = mask.resize(size, Image.Resampling.BILINEAR)
        return mask, notes

    def _decode(self, data: bytes, wanted: int, param: str) -> tuple[int, Image.Image]:
        unused = most = MOST_PIXELS * (3 if wanted == IMAGE else 1)
        self._room.take(most)
        try:
            with self._child() as child:
                kind, size, samples = child.ask(data, wanted)
            if kind == REFUSED:
                text = samples.decode("utf-8", "replace")
                raise InvalidImage(f"{param} {text}", param=param)
            image = Image.frombytes("RGB" if kind == RGB else "L", size, samples)
            give_back = weakref.finalize(image, self._room.give_back, len(samples))
            give_back.atexit = False
            unused = most - len(samples)
        except (EOFError, OSError) as error:
            raise InvalidImage(f"{param} {_FAILED}", param=param) from error
        finally:
            self._room.give_back(unused)
        return kind, image

    @contextlib.contextmanager
    def _child(self) -> Iterator[_Child]:
        child = self._idle.get()
        try:
            if child is not None and not child.alive:
                child.kill()
                child = None
            child = child or _start()
            yield child
        except BaseException:
            if child is not None:
                child.kill()
            child = None
            raise
        finally:
            if child is not None and child.answered >= _RECYCLE_AFTER:
                child.kill()
                child = None
            self._idle.put(child)


def is_picture(data: bytes) -> bool:
    """Whether ``data`` begins like a picture's file."""
    return data.startswith(_SIGNATURES) or data[4:8] == b"ftyp"


def _end(idle: queue.LifoQueue[_Child | None]) -> None:
    """At the exit, or when nobody has the decoder any more."""
    while not idle.empty():
        if (child := idle.get()) is not None:
            child.kill()


def _start() -> _Child:
    try:
        return _Child()
    except (EOFError, OSError) as error:
        message = "The server is short of what it needs to read a picture."
        raise Unavailable(message, retry_after=5) from error


class _Room:
    """Bytes of pictures in use."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        # A picture may be collected by the very thread that holds it.
        self._changed = threading.Condition(threading.RLock())

    def take(self, size: int) -> None:
        """Count ``size`` bytes; Unavailable where there is no room for a while."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: not self._used or self._used + size <= self._most, _ROOM_SECONDS
            ):
                message = "Too many pictures are held at the moment."
                raise Unavailable(message, retry_after=5)
            self._used += size

    def give_back(self, size: int) -> None:
        """No longer count them."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()


class _Child:
    """One process that decodes; EOFError or OSError when it does not answer."""

    _told = False

    def __init__(self) -> None:
        environ = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        program = Path(__file__).with_name("decode_child.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", program, str(Path(PIL.__path__[0]).parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            cwd="/",
            process_group=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input: IO[bytes] = self._process.stdin
        self._output: IO[bytes] = self._process.stdout
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.answered = 0
        with self._in_time():
            _, length, _ = HEADER.unpack(self._read(HEADER.size))
            missing = self._read(min(length, 100)).decode("ascii", "replace")
        if missing and not _Child._told:
            _Child._told = True
            logger.info(
                "pictures are decoded in a process of their own, but this kernel does "
                "not keep it from: %s",
                missing,
            )

    def ask(self, data: bytes, wanted: int) -> tuple[int, tuple[int, int], bytes]:
        """The kind of the answer, (width, height), and its samples; for ``REFUSED`` a
        clause."""
        with self._in_time():
            self._input.write(HEADER.pack(wanted, MOST_PIXELS, len(data)))
            self._input.write(data)
            self._input.flush()
            kind, width, height = HEADER.unpack(self._read(HEADER.size))
            if kind == REFUSED:
                length = min(width, 300)
            elif kind in _CHANNELS and 0 < width * height <= MOST_PIXELS:
                length = width * height * _CHANNELS[kind]
            else:
                raise EOFError
            samples = self._read(length)
        self.answered += 1
        return kind, (width, height), samples

    @property
    def alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._output.close()
        with contextlib.suppress(OSError):
            self._input.close()  # With what was not written yet.

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        timer = threading.Timer(_WALL_SECONDS, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _read(self, length: int) -> bytes:
        data = self._output.read(length)
        if len(data) < length:
            raise EOFError
        return data
