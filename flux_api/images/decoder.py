"""Pictures of strangers, decoded in processes that may crash: ``decode_child.py``."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import weakref
from pathlib import Path
from typing import NamedTuple

import PIL
from PIL import Image

from flux_api.errors import InvalidImage, Unavailable
from flux_api.images.children import Child, Pool
from flux_api.images.decode_child import (
    ALPHA,
    GREY,
    HEADER,
    IMAGE,
    MASK,
    REFUSED,
    RGB,
    SIZE,
    TOLD,
)

logger = logging.getLogger(__name__)

MOST_PIXELS = 2048 * 2048
"""No model draws or looks at more: larger pictures are given back at this size."""

CHILDREN = 2
# Under load a good picture may take seconds; its CPU time has a limit of its own.
_WALL_SECONDS = 30.0
_ROOM_SECONDS = 5.0
# Where the ``info`` of a picture that was shrunk keeps the size in its file.
_ORIGINAL = "original_size"
# What may be answered to what is wanted, and how many bytes a pixel has of it.
_CHANNELS = {(IMAGE, RGB): 3, (MASK, GREY): 1, (MASK, ALPHA): 1}
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II", b"MM")
_FAILED = "cannot be decoded: it is damaged, or costs more than a picture may"


class Decoder:
    """Decodes files, a few at once. All pictures that it gave away and that are still
    in use take at most ``most_bytes``; beyond it others wait a little, then
    Unavailable. Children start at the first use, in the process that uses them. With
    ``c2pa``, the folder of that library, they tell of content credentials too."""

    def __init__(self, most_bytes: int = 512 << 20, c2pa: Path | None = None) -> None:
        self._room = _Room(most_bytes)
        make = functools.partial(_DecodeChild, c2pa)
        self._children = Pool(make, CHILDREN, "read a picture")

    def image(self, data: bytes, *, param: str = "image") -> Image.Image:
        """The first frame in RGB: turned as EXIF says, in sRGB, alpha laid over white,
        at most ``MOST_PIXELS``. InvalidImage names ``param``."""
        return self._decode(data, IMAGE, param)[1]

    def mask(self, data: bytes, *, param: str) -> tuple[Image.Image, bool]:
        """A mask's alpha, or its grey where it has none, in mode L; and whether it is
        alpha. InvalidImage names ``param``."""
        kind, mask = self._decode(data, MASK, param)
        return mask, kind == ALPHA

    def keep(self, image: Image.Image) -> Image.Image:
        """``image``, made of one that was decoded: it counts as long as it is in
        use."""
        return self._room.keep(image)

    def tell(self, data: bytes, wanted: int, most: int) -> bytes:
        """What else stands in a file, at most ``most`` bytes, as ``decode_child.py``
        tells what is ``wanted``. InvalidImage holds a clause that says why not, or
        nothing."""
        kind, answer = REFUSED, b""
        with contextlib.suppress(EOFError, OSError), self._children.lend() as child:
            kind, answer, *_ = child.ask(data, wanted, most)
        if kind == REFUSED:
            raise InvalidImage(answer.decode("utf-8", "replace"))
        return answer

    def _decode(self, data: bytes, wanted: int, param: str) -> tuple[int, Image.Image]:
        most = MOST_PIXELS * (3 if wanted == IMAGE else 1)
        self._room.take(most)
        try:
            with self._children.lend() as child:
                found = child.ask(data, wanted, MOST_PIXELS)
            if found.kind == REFUSED:
                text = found.data.decode("utf-8", "replace")
                raise InvalidImage(f"{param} {text}", param=param)
            mode = "RGB" if found.kind == RGB else "L"
            image = Image.frombytes(mode, found.size, found.data)
            if found.original != found.size and min(found.original) > 0:
                image.info[_ORIGINAL] = found.original
            return found.kind, self._room.keep(image)
        except (EOFError, OSError) as error:
            raise InvalidImage(f"{param} {_FAILED}", param=param) from error
        finally:
            self._room.give_back(most)


def original_size(image: Image.Image) -> tuple[int, int]:
    """The (width, height) that ``image`` has in its file, turned as EXIF says: larger
    than its own where it was shrunk as it was decoded."""
    found: tuple[int, int] = image.info.get(_ORIGINAL, image.size)
    return found


def is_picture(data: bytes) -> bool:
    """Whether ``data`` begins like a picture's file."""
    return data.startswith(_SIGNATURES) or data[4:8] == b"ftyp"


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

    def keep(self, image: Image.Image) -> Image.Image:
        """``image``, counted as long as it is in use."""
        size = len(image.getbands()) * image.width * image.height
        with self._changed:
            self._used += size
        weakref.finalize(image, self.give_back, size).atexit = False
        return image

    def give_back(self, size: int) -> None:
        """No longer count them."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()


class _Answer(NamedTuple):
    """What a child says of a file: its samples, of a ``size`` and in the file of the
    size ``original``; a clause for ``REFUSED``, for ``TOLD`` what that is."""

    kind: int
    data: bytes
    size: tuple[int, int]
    original: tuple[int, int]


class _DecodeChild(Child):
    """One process that decodes."""

    _told = False

    def __init__(self, c2pa: Path | None) -> None:
        program = Path(__file__).with_name("decode_child.py")
        pillow = Path(PIL.__path__[0]).parent
        super().__init__(program, (pillow, c2pa) if c2pa else (pillow,))
        with self.in_time(_WALL_SECONDS):
            _, length, _ = HEADER.unpack(self.read(HEADER.size))
            missing = self.read(min(length, 100)).decode("ascii", "replace")
        if missing and not _DecodeChild._told:
            _DecodeChild._told = True
            logger.info(
                "pictures are decoded in a process of their own, but this kernel does "
                "not keep it from: %s",
                missing,
            )

    def ask(self, data: bytes, wanted: int, most: int) -> _Answer:
        """What it answers; EOFError where that claims what cannot be."""
        original = 0, 0
        with self.in_time(_WALL_SECONDS):
            self.write(HEADER.pack(wanted, most, len(data)), data)
            kind, width, height = HEADER.unpack(self.read(HEADER.size))
            if kind == REFUSED:
                length = min(width, 300)
            elif kind == TOLD and wanted not in (IMAGE, MASK) and width <= most:
                length = width
            elif (wanted, kind) in _CHANNELS and 0 < width * height <= MOST_PIXELS:
                length = width * height * _CHANNELS[wanted, kind]
                original = SIZE.unpack(self.read(SIZE.size))
            else:
                raise EOFError
            found = self.read(length)
        if kind == REFUSED:
            # It may come to stand in a header.
            found = bytes(filter(range(32, 127).__contains__, found))
        self.answered += 1
        return _Answer(kind, found, (width, height), original)
