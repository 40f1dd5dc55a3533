"""Pictures that a stranger may send: builders of odd, damaged and lying files.

Named by what is wrong with them; the numbers are the sections of the measured facts
that each stands for.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from functools import partial

from PIL import Image

from tests.support.pictures import save

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def plain(size=(40, 24), colour=(200, 100, 50)):
    return Image.new("RGB", size, colour)


def png_chunk(name, body=b"", length=None):
    size = len(body) if length is None else length
    checksum = zlib.crc32(name + body)
    return struct.pack(">L", size) + name + body + struct.pack(">L", checksum)


def png(width, height, depth=8, colours=2, rows=b"", extra=(), after=()):
    """A PNG of chosen header, raw rows (filter bytes included) and chunks."""
    header = struct.pack(">LLBBBBB", width, height, depth, colours, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), *after]
    body = b"".join(png_chunk(name, data) for name, data in chunks)
    return SIGNATURE + body + png_chunk(b"IEND")


def zeros_png(width, height, depth=8, colours=2, channels=3):
    """A true bomb: every pixel is there, compressed a thousandfold."""
    row = bytes(1 + (width * depth * channels + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">LLBBBBB", width, height, depth, colours, 0, 0, 0)
    return (
        SIGNATURE
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", body)
        + png_chunk(b"IEND")
    )


def grey16_png(samples, width, transparent=None):
    """A 16-bit grey PNG of these samples."""
    height = len(samples) // width
    rows = b"".join(
        b"\0" + struct.pack(f">{width}H", *samples[y * width : (y + 1) * width])
        for y in range(height)
    )
    key = [] if transparent is None else [(b"tRNS", struct.pack(">H", transparent))]
    return png(width, height, 16, 0, rows, key)


def exif(orientation=None, entries=(), order="<"):
    """An EXIF block; each entry is (tag, type, count, four bytes)."""
    if orientation is not None:
        value = struct.pack(order + "HH", orientation, 0)
        entries = [(274, 3, 1, value), *entries]
    mark = b"II" if order == "<" else b"MM"
    body = mark + struct.pack(order + "HLH", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack(order + "HHL", tag, kind, count) + value
    return b"Exif\0\0" + body + struct.pack(order + "L", 0)


def patched(data, find, replacement, offset=0):
    """The file with some bytes replaced, ``offset`` behind a mark in it."""
    position = data.index(find) + offset
    return data[:position] + replacement + data[position + len(replacement) :]


def jpeg_with(marker, body, image=None):
    """A JPEG with one more segment at its start."""
    data = save(image or plain(), "JPEG")
    segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    return data[:2] + segment + data[2:]


def lying_jpeg(width, height):
    return patched(
        save(plain(), "JPEG"), b"\xff\xc0", struct.pack(">HH", height, width), 5
    )


def many_scans():
    data = save(plain((16, 16)), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * 100 + data[-2:]


def lying_avif(size, claim):
    """A real AV1 picture in a file that claims another size for it."""
    data = save(plain(size), "AVIF", speed=10, quality=1)
    return patched(data, b"ispe", struct.pack(">LL", *claim), 8)


def gif(width, height, frame=None, blocks=b""):
    """A GIF of this canvas with a frame of two bytes of data."""
    frame = frame or (0, 0, 1, 1)
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + b"\0\0\0\xff\xff\xff"
        + blocks
        + b","
        + struct.pack("<HHHHB", *frame, 0)
        + b"\x02\x02\x4c\x01\x00;"
    )


def webp_canvas(width, height):
    """The start of a WebP whose canvas alone would be allocated on opening."""
    canvas = bytes(4) + (width - 1).to_bytes(3, "little")
    canvas += (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<L", 10) + canvas
    return b"RIFF" + struct.pack("<L", len(body)) + body


def bmp(width, height, bits=24, packing=0, body=b"\0" * 64):
    header = struct.pack(
        "<LllHHLLllLL", 40, width, height, 1, bits, packing, 0, 0, 0, 0, 0
    )
    offset = 14 + len(header)
    return (
        b"BM" + struct.pack("<LHHL", offset + len(body), 0, 0, offset) + header + body
    )


def tiff(entries, body=b""):
    """A TIFF whose one directory has these (tag, type, count, value) entries."""
    start = 8 + len(body)
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHLL", *entry) for entry in sorted(entries)
    )
    return b"II*\0" + struct.pack("<L", start) + body + directory + bytes(4)


def grey_tiff(width, height, *, strips=1, extra=()):
    body = bytes(4096)
    return tiff(
        [
            (256, 4, 1, width),
            (257, 4, 1, height),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, strips, 8),
            (277, 3, 1, 1),
            (278, 4, 1, height),
            (279, 4, strips, 8),
            *extra,
        ],
        body,
    )


def planar16_tiff():
    """Three planes of 16-bit samples, which Pillow reads as if they were pixels."""
    body = struct.pack("<3H", 16, 16, 16) + bytes(2) + random.Random(1).randbytes(384)
    places = struct.pack("<6L", 16, 144, 272, 128, 128, 128)
    short, long, end = 3, 4, 8 + len(body)
    return tiff(
        [
            (256, long, 1, 8),
            (257, long, 1, 8),
            (258, short, 3, 8),
            (259, short, 1, 1),
            (262, short, 1, 2),
            (273, long, 3, end),
            (277, short, 1, 3),
            (278, long, 1, 8),
            (279, long, 3, end + 12),
            (284, short, 1, 2),
        ],
        body + places,
    )


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.html", "hello")
    return buffer.getvalue()


def text_bomb(name):
    """50 MB of text in 50 KB of chunk."""
    head = b"x\0\0" if name == b"zTXt" else b"x\0\1\0\0\0"
    bomb = head + zlib.compress(bytes(50_000_000), 9)
    return png(1, 1, rows=b"\0\1\2\3", extra=[(name, bomb)])


PLAIN = {kind: partial(save, plain(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")}
PLAIN |= {kind: partial(save, plain(), kind) for kind in ("BMP", "TIFF", "AVIF")}


POLYGLOTS = {
    "png-zip": lambda: save(plain(), "PNG") + zipped(),
    "jpeg-zip": lambda: save(plain(), "JPEG") + zipped(),
    "png-html": lambda: save(plain(), "PNG") + b"<script>alert(1)</script>",
    "jpeg-pdf": lambda: jpeg_with(0xFE, b"%PDF-1.7 "),
    "gif-script": lambda: gif(16, 16) + b"<ScRiPt src=x>",
    "jpeg-php": lambda: jpeg_with(0xFE, b"<?php phpinfo();"),
}
"""Pictures that are another kind of file as well: nothing here is ever served as it
came, so they are pictures like others."""


def _noise(kind):
    return save(Image.effect_noise((64, 48), 80).convert("RGB"), kind)


def _truncated(kind):
    data = _noise(kind)
    return data[: len(data) * 2 // 3]


def _overlapping_exif():
    """Five thousand entries that each point to the same 32 KB."""
    entries = [(1000 + i, 7, 30_000, struct.pack("<L", 8)) for i in range(2000)]
    return jpeg_with(0xE1, exif(entries=entries) + bytes(30_000))


def _huge_exif():
    data = save(plain(), "JPEG")
    segment = b"\xff\xe1\xff\xff" + b"Exif\0\0" + bytes(65_527)
    return data[:2] + segment * 200 + data[2:]


REFUSED = {
    # 0, finding 9, and 4: formats.
    "0-9-format-eps": lambda: save(plain(), "EPS"),
    "0-9-format-ppm": lambda: save(plain(), "PPM"),
    "0-9-format-pdf": lambda: save(plain(), "PDF"),
    "0-9-format-ico": lambda: save(plain(), "ICO"),
    "0-9-format-jpeg2000": lambda: save(plain(), "JPEG2000"),
    "0-9-format-svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "0-9-format-heic": lambda: b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(64),
    "0-9-format-nothing": lambda: b"",
    "0-9-format-text": lambda: b"not a picture",
    "0-9-format-bigtiff": lambda: b"II+\0\x08\0\0\0" + bytes(64),
    # 0, finding 9: bombs that Pillow only warns of.
    "0-9-bomb-100-mp-png": lambda: zeros_png(10_000, 10_000, 1, 0, 1),
    "0-9-bomb-41-mp-png": lambda: zeros_png(6404, 6404, 1, 0, 1),
    "0-9-bomb-900-mp-png": lambda: png(30_000, 30_000),
    # 4: pixels and sides, each before the decoder allocates.
    "4-side-png": lambda: zeros_png(16_385, 4, 1, 0, 1),
    "4-size-zero-png": lambda: png(0, 0),
    "4-pixels-jpeg": lambda: lying_jpeg(9000, 9000),
    "4-pixels-jpeg-65535": lambda: lying_jpeg(65_535, 65_535),
    "4-pixels-gif-canvas": lambda: gif(65_535, 65_535),
    "4-pixels-gif-frame": lambda: gif(16, 16, (0, 0, 65_535, 65_535)),
    "4-pixels-webp-canvas": lambda: webp_canvas(16_384, 16_384),
    "4-pixels-webp-canvas-2-24": lambda: webp_canvas(2**24, 2**24),
    "4-pixels-webp-lossy": lambda: patched(
        save(plain(), "WEBP"), b"\x9d\x01\x2a", b"\xff\x3f\xff\x3f", 3
    ),
    "4-pixels-webp-lossless": lambda: patched(
        save(plain(), "WEBP", lossless=True), b"\x2f", b"\xff\xff\xff\x0f", 1
    ),
    "4-pixels-bmp": lambda: bmp(30_000, 30_000),
    "4-pixels-bmp-negative": lambda: bmp(-5, 5),
    "4-pixels-tiff": lambda: grey_tiff(30_000, 30_000),
    "4-pixels-avif": lambda: lying_avif((64, 64), (30_000, 30_000)),
    # 4: headers that lie about what follows.
    "4-lying-png": lambda: png(6000, 6000, rows=bytes(1000)),
    "4-lying-png-short-rows": lambda: png(60, 60, rows=bytes(1000)),
    "4-lying-jpeg": lambda: lying_jpeg(6000, 6000),
    "4-lying-jpeg-rows": lambda: patched(
        _noise("JPEG"), b"\xff\xc0", struct.pack(">H", 64), 5
    ),
    "4-truncated-jpeg-with-end": lambda: _truncated("JPEG") + b"\xff\xd9",
    "4-truncated-jpeg-before-more": lambda: (
        _truncated("JPEG") + b"\xff\xd9" + save(plain(), "JPEG")
    ),
    "4-lying-bmp": lambda: bmp(6000, 6000),
    "4-lying-bmp-rle": lambda: bmp(6000, 6000, 8, 1),
    "4-lying-tiff-strips": lambda: grey_tiff(64, 64, strips=2**31),
    "4-lying-tiff-many-strips": lambda: grey_tiff(64, 64, strips=2**20),
    "4-lying-webp-length": lambda: patched(
        save(plain(), "WEBP"), b"RIFF", b"\xff\xff\xff\x7f", 4
    ),
    "4-lying-jpeg-is-png": lambda: b"\xff\xd8\xff" + save(plain(), "PNG"),
    # 4: loops that a decoder walks in Python.
    "4-frames-jpeg-fill": lambda: b"\xff\xd8" + b"\xff" * 1_000_000,
    # 4: LOAD_TRUNCATED_IMAGES stays off.
    **{f"4-truncated-{kind.lower()}": partial(_truncated, kind) for kind in PLAIN},
    "4-truncated-png-header": lambda: SIGNATURE + b"\0\0\0\x0dIHDR",
    "4-truncated-png-body-missing": lambda: png(8, 8),
    "4-truncated-jpeg-start": lambda: b"\xff\xd8\xff",
    "4-truncated-avif-start": lambda: b"\0\0\0\x20ftypavif" + bytes(20),
    "4-truncated-tiff-start": lambda: b"II*\0\xff\xff\xff\xff",
    "4-samples-12-bit": lambda: save(Image.new("L", (4, 4)), "TIFF").replace(
        b"\x02\x01\x03\0\x01\0\0\0\x08\0", b"\x02\x01\x03\0\x01\0\0\0\x0c\0"
    ),
    "4-camera-raw": lambda: grey_tiff(8, 8, extra=[(254, 4, 1, 1), (330, 4, 1, 8)]),
    "4-samples-32-bit": lambda: save(Image.new("I", (4, 4)), "TIFF"),
    "4-samples-float": lambda: save(Image.new("F", (4, 4)), "TIFF"),
}


ODD = {
    # Bombs in what nobody reads.
    "0-9-bomb-ztxt": lambda: text_bomb(b"zTXt"),
    "0-9-bomb-itxt": lambda: text_bomb(b"iTXt"),
    "0-9-bomb-iccp": lambda: png(
        1,
        1,
        rows=b"\0\1\2\3",
        extra=[(b"iCCP", b"x\0\0" + zlib.compress(bytes(50_000_000), 9))],
    ),
    "4-pixels-tiff-tile": lambda: grey_tiff(
        64, 64, extra=[(322, 4, 1, 60_000), (323, 4, 1, 60_000)]
    ),
    "4-lying-avif-stream": lambda: lying_avif((2048, 2048), (16, 16)),
    "4-lying-tiff-offset": lambda: grey_tiff(64, 64, extra=[(700, 1, 2**30, 8)]),
    "4-lying-tiff-overlap": lambda: grey_tiff(
        64, 64, extra=[(1000 + i, 1, 4000, 8) for i in range(400)]
    ),
    "4-frames-gif-blocks": lambda: gif(
        16, 16, blocks=b"!\xfe" + b"\1x" * 200_000 + b"\0"
    ),
    "4-frames-png-chunks": lambda: png(
        1, 1, rows=b"\0\1\2\3", extra=[(b"tEXt", b"a\0b")] * 70_000
    ),
    "4-frames-jpeg-scans": many_scans,
    # 4: metadata that is corrupt.
    "4-exif-corrupt-jpeg": lambda: jpeg_with(0xE1, b"Exif\0\0rubbish"),
    "4-exif-corrupt-directory": lambda: jpeg_with(
        0xE1, b"Exif\0\0II*\0\xff\xff\0\0rubbish"
    ),
    "4-exif-corrupt-entry": lambda: jpeg_with(
        0xE1, exif(entries=[(271, 2, 2**31, b"\1\0\0\0")])
    ),
    "4-exif-corrupt-count": lambda: jpeg_with(0xE1, exif(6)[:20]),
    "4-exif-corrupt-end": lambda: jpeg_with(0xE1, exif(6)[:-1]),
    "4-exif-corrupt-png": lambda: png(
        1, 1, rows=b"\0\1\2\3", extra=[(b"eXIf", b"rubbish")]
    ),
    "4-exif-corrupt-png-late": lambda: png(
        1, 1, rows=b"\0\1\2\3", after=[(b"eXIf", b"rubbish")]
    ),
    "4-exif-corrupt-webp": lambda: save(plain(), "WEBP", exif=b"Exif\0\0rubbish"),
    "4-exif-overlapping": _overlapping_exif,
    "4-exif-huge": _huge_exif,
    **{
        f"4-icc-corrupt-{kind.lower()}": partial(
            save, plain(), kind, icc_profile=b"rubbish" * 50
        )
        for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")
    },
}
"""Files that are only odd: all their pixels are there, and they are read."""


def icc_profile(space=b"RGB ", primaries="rgb", name=""):
    """A linear profile: of grey, or of sRGB's primaries in the order given, in capitals
    those of Display P3; called ``name``."""
    columns = {
        "r": (0.4361, 0.2225, 0.0139),
        "g": (0.3851, 0.7169, 0.0971),
        "b": (0.1431, 0.0606, 0.7141),
        "R": (0.5151, 0.2412, -0.0011),
        "G": (0.2920, 0.6922, 0.0419),
        "B": (0.1571, 0.0666, 0.7841),
    }

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3l", *(int(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">L", 0)
    tags = {b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        for place, source in zip("rgb", primaries, strict=True):
            tags[place.encode() + b"XYZ"] = xyz(columns[source])
            tags[place.encode() + b"TRC"] = curve
    if name:
        text = name.encode() + b"\0"
        tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">L", len(text)) + text
        tags[b"desc"] += bytes(4 + 4 + 2 + 1 + 67)  # no name in other scripts
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">L", len(tags)), b""
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += tag + struct.pack(">LL", offset + len(body), len(data))
        body += data
    header = struct.pack(
        ">L4sL4s4s4s", offset + len(body), b"", 0x02400000, b"mntr", space, b"XYZ "
    )
    header += (
        bytes(12) + b"acsp" + bytes(28) + struct.pack(">3l", 0xF6D6, 0x10000, 0xD32D)
    )
    return header.ljust(128, b"\0") + table + body
