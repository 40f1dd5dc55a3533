"""JPEG files: their segments judged beforehand, and a reader that notices lies.

libjpeg paints grey what is missing and only warns, which Pillow does not pass on.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator

from PIL import Image, JpegImagePlugin

from flux_api.images.limits import HeaderError, check_size
from flux_api.images.tiff import join_exif, read_orientation

_END = 0xD9
_SCAN = 0xDA
_EXIF = 0xE1
_RESTARTS = range(0xD0, 0xD8)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ARITHMETIC = range(0xC9, 0xD0)
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Each costs the decoder a turn of a Python loop; each scan one over all pixels.
_MAX_SEGMENTS = 65_536
_MAX_SCANS = 64
_PIXELS_PER_BYTE = 512  # One bit for a block of 64 pixels.
_MARK_BYTES = 8


def check_jpeg(data: bytes) -> None:
    """Refuse a file that is too large, lying or costly by its segments."""
    scans, exif = 0, b""
    for marker, start, end in _segments(data):
        if marker == _EXIF and data.startswith(b"Exif\0\0", start):
            segment = data[start:end]
            exif = join_exif(exif, segment) if exif else segment
        elif marker == _SCAN:
            scans += 1
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 1)
            check_size(width, height)
            dense = marker in _ARITHMETIC
            if not dense and width * height > _PIXELS_PER_BYTE * len(data):
                raise HeaderError("claims to be larger than its data can be")
    if not 0 < scans <= _MAX_SCANS:
        raise HeaderError("has too many scans" if scans else "has no picture")
    read_orientation(exif)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment's body, the end marker last."""
    position, scanned = 2, False
    for _ in range(_MAX_SEGMENTS):
        if position >= len(data) and scanned:
            return  # No end marker: whether all pixels are there, the decoder knows.
        start, marker = struct.unpack_from(">BB", data, position)
        if start != 0xFF:
            raise HeaderError("is damaged")
        if marker == 0xFF or marker in _RESTARTS:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == _END:
            yield marker, position, position
            return
        body = position + 4
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
        yield marker, body, position
        if marker == _SCAN:
            scanned = True
            found = _SCAN_END.search(data, position)
            position = found.start() if found else len(data)
    raise HeaderError("has too many segments")


def _one_scan_end(data: bytes) -> int | None:
    """Where the data of a picture's only scan ends; None where there are several."""
    scans, end = 0, len(data)
    for marker, start, _ in _segments(data):
        scans += marker == _SCAN
        end = start if marker == _END else len(data)
    return end if scans == 1 else None


class StrictJpegFile(JpegImagePlugin.JpegImageFile):
    """Pillow's reader, but it refuses a picture whose last row is not in the data.

    The decoder gets the scan without its end marker, so that it cannot make up what
    is missing; when it asks for more, a random last row must have been painted over.
    """

    def load_prepare(self) -> None:
        super().load_prepare()
        assert self.fp is not None
        position = self.fp.tell()
        self.fp.seek(0)
        self._data = self.fp.read()
        self.fp.seek(position)
        self._end = _one_scan_end(self._data)
        self._mark = os.urandom(self.width * len(self.getbands()))
        if len(self._mark) < _MARK_BYTES:
            self._end = None  # A pixel could be like the mark by chance.
        if self._end is not None:
            row = Image.frombytes(self.mode, (self.width, 1), self._mark)
            self.im.paste(row.im, (0, self.height - 1, self.width, self.height))

    def load_read(self, read_bytes: int) -> bytes:
        if self._end is None:
            return super().load_read(read_bytes)
        if self._data:
            scan = self._data[: self._end]
            self._data = b""
            return scan + bytes(16)  # The decoder looks a few bytes ahead.
        if self._last_row() == self._mark:
            raise HeaderError("is cut off or claims more rows than it has")
        self._end = None
        return b"\xff\xd9"

    def _last_row(self) -> bytes:
        row = Image.new(self.mode, (self.width, 1))
        box = (0, self.height - 1, self.width, self.height)
        row.im.paste(self.im.crop(box), (0, 0, self.width, 1))
        return row.tobytes()
