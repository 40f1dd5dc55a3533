"""TIFF directories: of EXIF metadata, and of TIFF files before they are decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from flux_api.images.limits import HeaderError, check_size

_WIDTH, _HEIGHT, _ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 274, 322, 323
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SHORT, _LONG = 3, 4
_MAX_ENTRIES = 512
_PREFIX = b"Exif\0\0"
_MAX_EXIF = 2**20
# As many strips as the tallest picture has rows, in four separate planes.
_MAX_VALUES = 65_536


@dataclass(frozen=True, slots=True)
class _Entry:
    tag: int
    count: int
    item_size: int
    value: int | None  # Of a single short or long.


def join_exif(exif: bytes, segment: bytes) -> bytes:
    """EXIF that is spread over several segments of a file, within the limit."""
    if len(exif) + len(segment) > _MAX_EXIF:
        raise HeaderError("has too much EXIF metadata")
    return exif + segment.removeprefix(_PREFIX)


def read_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, of an EXIF block; corrupt ones are refused."""
    # Twice: some writers put the prefix into PNG's chunk, and Pillow adds its own.
    exif = join_exif(b"", exif).removeprefix(_PREFIX)
    if not exif:
        return 1
    try:
        values = {entry.tag: entry.value for entry in _read_directory(exif)}
    except struct.error as error:
        raise HeaderError("has corrupt EXIF metadata") from error
    orientation = values.get(_ORIENTATION) or 1
    return orientation if 1 <= orientation <= 8 else 1


def check_tiff(data: bytes) -> None:
    """Refuse a TIFF file whose first directory asks for more than it may."""
    values: dict[int, int] = {}
    for entry in _read_directory(data):
        if entry.item_size > 1 and entry.count > _MAX_VALUES:
            raise HeaderError("has too many strips or tiles")
        if entry.value is not None:
            values[entry.tag] = entry.value
    check_size(values.get(_WIDTH, 0), values.get(_HEIGHT, 0))
    check_size(values.get(_TILE_WIDTH, 1), values.get(_TILE_HEIGHT, 1))


def _read_directory(data: bytes) -> Iterator[_Entry]:
    """The entries of the first directory, each checked to lie within the data."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        raise HeaderError("has corrupt EXIF metadata")
    order = "<" if data[:1] == b"I" else ">"
    start: int = struct.unpack_from(order + "L", data, 4)[0]
    entries: int = struct.unpack_from(order + "H", data, start)[0]
    total = 0
    if entries > _MAX_ENTRIES:
        raise HeaderError("has too much metadata")
    struct.unpack_from("<L", data, start + 2 + 12 * entries)  # The next one's place.
    for position in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHL", data, position)
        size = _SIZES.get(kind, 0)
        value = None
        if count == 1 and kind in (_SHORT, _LONG):
            code = order + ("H" if kind == _SHORT else "L")
            value = struct.unpack_from(code, data, position + 8)[0]
        if size * count > 4:
            offset = struct.unpack_from(order + "L", data, position + 8)[0]
            total += size * count
            # Entries may not overlap much: each is copied when it is read.
            if offset + size * count > len(data) or total > len(data):
                raise HeaderError("has corrupt metadata")
        yield _Entry(tag, count, size, value)
