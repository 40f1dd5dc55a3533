"""An AVIF file's claims: the sizes of its boxes and of the AV1 streams within.

The decoder allocates by the AV1 stream's own header and scales to what the boxes
say, so that 2 KB which claim to be a thumbnail can cost gigabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from flux_api.images.limits import MAX_PIXELS, HeaderError, check_size

_MAX_BOXES = 4096
_SEQUENCE_HEADER = 1


def check_avif(data: bytes) -> None:
    """Refuse what is larger than the limits, or other than it claims to be."""
    claimed: set[tuple[int, int]] = set()
    kinds: set[tuple[int, bytes]] = set()  # An item may be listed as several.
    places: list[tuple[int, int, int]] = []
    for name, start, end in _boxes(data, 0, len(data)):
        if name != b"meta":
            continue
        for child, first, last in _boxes(data, start + 4, end):
            if child == b"iinf":
                kinds.update(_item_kinds(data, first, last))
            elif child == b"iloc":
                places.extend(_item_places(data, first))
            elif child == b"iprp":
                claimed.update(_claimed_sizes(data, first, last))
    streams = [place for place in places if (place[0], b"av01") in kinds]
    if any(kind == b"grid" for _, kind in kinds):
        raise HeaderError("is an AVIF made of tiles, which is not supported")
    if not streams:
        raise HeaderError("has no picture")
    for size in claimed:
        check_size(*size)
    for _, start, length in streams:
        if _stream_size(data, start, start + length) not in claimed:
            raise HeaderError("claims another size than its picture has")


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    for _ in range(_MAX_BOXES):
        if start >= end:
            return
        size, name = struct.unpack_from(">L4s", data, start)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        elif size == 0:
            size = end - start
        if size < head or start + size > end:
            raise HeaderError("is cut off or damaged")
        yield name, start + head, start + size
        start += size
    raise HeaderError("has too many boxes")


def _item_kinds(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    count_size = 2 if data[start] == 0 else 4
    for name, first, _ in _boxes(data, start + 4 + count_size, end):
        if name == b"infe" and data[first] in (2, 3):
            layout = ">HH4s" if data[first] == 2 else ">LH4s"
            item, _, kind = struct.unpack_from(layout, data, first + 4)
            yield item, kind


def _item_places(data: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """Item, offset and length of each item that lies in the file in one piece."""
    version, sizes = data[start], struct.unpack_from(">H", data, start + 4)[0]
    offset_size, length_size = sizes >> 12, sizes >> 8 & 15
    base_size, index_size = sizes >> 4 & 15, sizes & 15 if version else 0
    position = start + 6

    def take(size: int) -> int:
        nonlocal position
        position += size
        if position > len(data):
            raise HeaderError("is cut off or damaged")
        return int.from_bytes(data[position - size : position], "big")

    items = take(2 if version < 2 else 4)
    if items > _MAX_BOXES:
        raise HeaderError("has too many items")
    for _ in range(items):
        item = take(2 if version < 2 else 4)
        method = take(2) & 15 if version else 0
        take(2)
        base = take(base_size)
        extents = take(2)
        if extents != 1 or method:
            position += extents * (index_size + offset_size + length_size)
            yield item, 0, 0  # Refused if it should be an AV1 stream.
            continue
        take(index_size)
        offset, length = base + take(offset_size), take(length_size)
        yield item, offset, length or len(data) - offset


def _claimed_sizes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    for name, first, last in _boxes(data, start, end):
        if name == b"ipco":
            for child, inner, _ in _boxes(data, first, last):
                if child == b"ispe":
                    width, height = struct.unpack_from(">LL", data, inner + 4)
                    yield width, height


def _stream_size(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The size that every sequence header of an AV1 stream agrees on."""
    sizes, units = set(), 0
    while start < end:
        units += 1
        if units > _MAX_BOXES:
            raise HeaderError("has too many parts")
        header = data[start]
        start += 2 if header & 4 else 1
        size = end - start
        if header & 2:
            size, start = _leb128(data, start)
        if header >> 3 & 15 == _SEQUENCE_HEADER:
            sizes.add(_sequence_size(data[start : start + min(size, 128)]))
        start += size
    if len(sizes) != 1:
        raise HeaderError("is cut off or damaged")
    return sizes.pop()


def _leb128(data: bytes, start: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        value |= (data[start + index] & 0x7F) << 7 * index
        if data[start + index] < 0x80:
            return value, start + index + 1
    raise HeaderError("is cut off or damaged")


def _sequence_size(header: bytes) -> tuple[int, int]:
    """AV1 specification, 5.5.1, as far as the largest frame size."""
    bits = int.from_bytes(header.ljust(128, b"\0"), "big")
    take = _bit_reader(bits, 1024)
    take(4)
    reduced = take(1)
    if reduced:
        take(5)
    else:
        if take(1):
            raise HeaderError("has timing information, which a picture does not need")
        delays = take(1)
        for _ in range(take(5) + 1):
            take(12)
            if take(5) > 7:
                take(1)
            if delays and take(1):
                take(4)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    size = take(width_bits) + 1, take(height_bits) + 1
    check_size(*size)
    # Single frames may override the size, as far as these bits go.
    if not reduced and 1 << width_bits + height_bits > 4 * MAX_PIXELS:
        raise HeaderError("may hold frames beyond the limits")
    return size


def _bit_reader(bits: int, left: int) -> Callable[[int], int]:
    def take(count: int) -> int:
        nonlocal left
        left -= count
        return bits >> left & (1 << count) - 1

    return take
