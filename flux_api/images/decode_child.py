"""Run as a program by ``decoder.py``: bytes of a file in, samples of a picture out.

It is a process of its own, without secrets, network or files as far as the kernel lets
an ordinary user have that, with bounds of memory and time: whatever a codec does with a
hostile file, the server and its weights are not there. Needs nothing but Pillow, and is
one file because it runs without the package around it.

Both ways, over its standard input and output: three little-endian numbers, then bytes.
In: what is wanted (``IMAGE`` or ``MASK``), the most pixels to give back, the length of
the file that follows. Out: what came out (``GREY``, ``ALPHA``, ``RGB`` with the file's
own width and height and the samples after it, or ``REFUSED`` with a clause for the
caller), width, height.

It also tells what else stands in a file. In: ``TEXTS`` or ``CREDENTIALS``, the most
bytes to give back, the length of what follows: a file, in front of which for the latter
stands a line of JSON that describes it as an ingredient. Out: ``TOLD``, a length and 0,
then JSON with the texts of a PNG by their keywords, or the archive of c2pa-python,
where the child was told of a folder with that, empty for a file without credentials.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import re
import resource
import signal
import struct
import sys
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any, BinaryIO

if __name__ == "__main__":
    # -I takes away the user's own packages, which may be where Pillow is.
    sys.path += sys.argv[1:]

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

IMAGE, MASK, CREDENTIALS, TEXTS = 0, 1, 2, 3
REFUSED, GREY, ALPHA, RGB, TOLD = 0, 1, 2, 3, 4
HEADER, SIZE = struct.Struct("<BLL"), struct.Struct("<LL")

MEMORY_BYTES = 1536 << 20
CPU_SECONDS = 10
MAX_SIDE = 16_384
MAX_PIXELS = 40_000_000
# Decoded at an eighth of the size where that is enough.
MAX_JPEG_PIXELS = 200_000_000
TEXT_BYTES = 16 << 20

READERS: list[Callable[[BytesIO], ImageFile.ImageFile]] = [
    AvifImagePlugin.AvifImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
]
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = [TURNS[orientation] for orientation in (5, 6, 7, 8)]
ORIENTATION = 274
KIND, BITS, PHOTOMETRIC, PLANAR, INNER = 254, 258, 262, 284, 330
SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
KINDS = "a PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF image"


class Refused(Exception):
    """Not a picture that can be served; the text is one clause for the caller."""


# -- what is read -------------------------------------------------------------------


def open_image(data: bytes) -> ImageFile.ImageFile:
    """A reader of the file by its first bytes, nothing decoded yet."""
    if data[12:16] == b"CgBI":
        raise Refused("is an iOS app's PNG (CgBI), not supported: send an ordinary one")
    if data.startswith(b"\xff\xd8"):  # Stray bytes may follow even here.
        return StrictJpegFile(BytesIO(tidy_jpeg(data)))
    if data[4:8] == b"ftyp" and data[8:12] == b"avis":
        # With this brand the still picture is decoded, never a track of frames.
        data = data[:8] + b"avif" + data[12:]
    for reader in READERS:
        try:
            return reader(BytesIO(data))
        except (SyntaxError, IndexError, TypeError, KeyError, EOFError, struct.error):
            continue
    raise Refused(name_format(data))


def name_format(data: bytes) -> str:
    """What to do with a file of a known kind that is not read."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return (
            "is a HEIC picture, which this server does not read; send it as JPEG, or "
            "have requirements-heif.txt installed on the server"
        )
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "is a JPEG XL picture, which is not supported; send it as PNG or JPEG"
    signatures = (b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II", b"MM")
    known = data.startswith(signatures) or data[8:12] == b"WEBP" or data[4:8] == b"ftyp"
    return "is damaged or not a supported image" if known else f"is not {KINDS}"


def check_size(image: Image.Image) -> None:
    """Refused beyond the limits, before anything is decoded."""
    width, height = image.size
    most = MAX_JPEG_PIXELS if isinstance(image, StrictJpegFile) else MAX_PIXELS
    if max(image.size) > MAX_SIDE or width * height > most:
        raise Refused(
            f"is {width}x{height}; the limits are {MAX_SIDE} pixels a side and "
            f"{most // 1_000_000} million pixels"
        )
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(BITS, ())
        if (image.tag_v2.get(PLANAR) == 2 and 16 in bits) or 12 in bits:
            # Pillow reads the bytes of the planes as if they were pixels, and 12 bits
            # as if they were 16.
            raise Refused("is a TIFF of 16-bit planes or 12 bits: send it as PNG")
        if image.tag_v2.get(KIND, 0) & 1 and INNER in image.tag_v2:
            # What comes first there is a thumbnail.
            raise Refused("is a camera's raw file, not supported: send it as JPEG")


def decode(data: bytes, wanted: int, most: int) -> Image.Image:
    """The first frame as EXIF turns it, in sRGB, at most ``most`` pixels: RGB with
    alpha laid over white, or for a mask its alpha, else its grey. Its ``info`` has the
    ``size`` that it has in the file."""
    # So Pillow opens a PNG without the chunks that are damaged and say nothing of its
    # pixels; of these none may be missing.
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    image = open_image(data)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    check_size(image)
    own = image.size
    if isinstance(image, StrictJpegFile) and image.width * image.height > most:
        image.draft("RGB", shrunk(image.size, most))
    is_gif = isinstance(image, GifImagePlugin.GifImageFile)
    frame = image.tile[0].extents if is_gif else None
    image.load()
    if not isinstance(image, StrictJpegFile):
        own = image.size  # Some turn as they are loaded.
    turn = TURNS.get(read_orientation(image))
    own = own[::-1] if turn in SIDEWAYS else own
    colours, alpha = split_alpha(image, data)
    if wanted == MASK and alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None  # Drawn in black and white on a canvas: it says nothing.
    if frame is not None and frame != (0, 0, *image.size):
        # Outside its first frame a GIF's canvas is empty.
        inside = Image.new("L", image.size, 0)
        inside.paste(255, frame)
        alpha = ImageChops.multiply(alpha, inside) if alpha else inside
    if wanted == MASK and alpha is not None:
        picture = alpha
    else:
        picture = to_srgb(colours, image.info.get("icc_profile"))
        if alpha is not None:
            canvas = Image.new("RGB", picture.size, "white")
            canvas.paste(picture, mask=alpha)
            picture = canvas
        picture = picture.convert("L") if wanted == MASK else picture
        alpha = None
    if picture.width * picture.height > most:
        size = shrunk(picture.size, most)
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    picture = picture.transpose(turn) if turn is not None else picture
    picture.info = {"alpha": alpha is not None, "size": own}
    return picture


def shrunk(size: tuple[int, int], most: int) -> tuple[int, int]:
    """``size`` in its shape with at most ``most`` pixels."""
    width, height = size
    scale = (most / (width * height)) ** 0.5
    return max(1, int(width * scale)), max(1, int(height * scale))


def read_orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none or it is corrupt."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return 1  # Pillow turns these by itself.
    # Some writers put the prefix into PNG's chunk, and Pillow adds its own.
    block = image.info.get("exif") or b""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    exif = Image.Exif()
    try:
        exif.load(block)
        return int(exif.get(ORIENTATION, 1))
    except Exception:  # a parser over whatever bytes are there
        return 1


# -- samples ------------------------------------------------------------------------


def split_alpha(
    image: Image.Image, data: bytes
) -> tuple[Image.Image, Image.Image | None]:
    """Colours in L, RGB or CMYK with 8 bits, and the alpha channel."""
    if image.mode.startswith("I;16"):
        return split_grey16(image)
    if image.mode in ("I", "F"):
        raise Refused("has 32-bit samples, which are not supported")
    if image.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] = scale_key(image, depth=data[24])
    if image.mode == "La":
        # Premultiplied grey goes by the way of colours, which Pillow knows.
        grey, alpha = image.split()
        image = Image.merge("RGBa", (grey, grey, grey, alpha)).convert("RGBA")
    if image.format == "BMP" and image.getextrema()[-1] == (0, 0):
        # Most writers leave the fourth byte empty, and no viewer reads it then.
        image = image.convert("RGB")
    if image.mode in ("RGBA", "LA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    if image.mode in ("PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return image.convert("RGB"), image.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def scale_key(image: Image.Image, depth: int) -> int | bytes | tuple[int, ...]:
    """A PNG's transparent colour in the samples that Pillow makes of ``depth`` bits."""
    key: int | bytes | tuple[int, ...] = image.info["transparency"]
    if isinstance(key, tuple) and depth == 16:
        return tuple(sample >> 8 for sample in key)
    if isinstance(key, int) and image.mode == "L":
        return key * 255 // ((1 << depth) - 1)
    return key


def split_grey16(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The upper 8 bits: Pillow's own conversion cuts everything above 255 off."""
    samples = image.tobytes()
    big = image.mode.endswith("B")
    high = Image.frombytes("L", image.size, samples[0 if big else 1 :: 2])
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:  # White is zero.
        high = ImageChops.invert(high)
    if (key := image.info.get("transparency")) is None:
        return high, None
    # Only PNG has a key, and its samples come with the low byte first.
    low = Image.frombytes("L", image.size, samples[::2])
    same = [
        part.point([255 * (level == sample) for level in range(256)])
        for part, sample in ((high, key >> 8), (low, key & 255))
    ]
    return high, ImageChops.invert(ImageChops.multiply(*same))


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """In RGB, converted where a usable profile makes other colours of the samples."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if SPACES.get(source.profile.xcolor_space.strip()) == image.mode:
                return convert(image, source)
        except (OSError, ImageCms.PyCMSError):
            pass  # A corrupt profile changes nothing.
    return image.convert("RGB")


def convert(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    """By the profile; unchanged where it is sRGB's twin, whatever its name: what one
    rounding more would change is not worth it."""
    transform = ImageCms.buildTransform(source, SRGB, image.mode, "RGB")
    if image.mode == "RGB":
        levels = range(0, 256, 51)
        cube = bytes(
            level for r in levels for g in levels for b in levels for level in (r, g, b)
        )
        probe = Image.frombytes("RGB", (len(cube) // 3, 1), cube)
        seen = ImageCms.applyTransform(probe, transform)
        assert seen is not None
        extrema = ImageChops.difference(probe, seen).getextrema()
        if max(high for _, high in extrema) <= 2:  # type: ignore[misc]
            return image
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted


# -- JPEG ---------------------------------------------------------------------------

SCAN, END = 0xDA, 0xD9
APPS = range(0xE0, 0xF0)
# Shorter metadata (JFIF, ICC, Adobe) has no end, at which Pillow looks.
LEAST_BYTES = {0xE0: 16, 0xE2: 19, 0xEE: 16}
# Anything but fill bytes, restarts and the start of a picture.
SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
MARK_BYTES = 8


def tidy_jpeg(data: bytes) -> bytes:
    """``data`` as Pillow reads it: without stray bytes between the segments in front
    of the picture, and with the metadata, where its profile is, first."""
    apps, others = list[bytes](), list[bytes]()
    position = 2
    while (found := next_segment(data, position)) is not None:
        marker, start, end = found
        if marker in (SCAN, END):
            return b"".join((data[:2], *apps, *others, data[start:]))
        if end - start >= LEAST_BYTES.get(marker, 5):
            (apps if marker in APPS else others).append(data[start:end])
        position = max(end, start + 4)
    return data


def next_segment(data: bytes, position: int) -> tuple[int, int, int] | None:
    """Marker, start and end of the next segment from ``position`` on."""
    if (found := SEGMENT.search(data, position)) is None:
        return None
    start, marker = found.start(), data[found.start() + 1]
    length = 0 if marker == END else int.from_bytes(data[start + 2 : start + 4], "big")
    return marker, start, start + 2 + length


def one_scan_end(data: bytes) -> int | None:
    """Where the data of a picture's only scan ends; None where there are several."""
    scans, position = 0, 2
    while (found := next_segment(data, position)) is not None:
        marker, start, position = found
        if marker == END:
            return start if scans == 1 else None
        if marker == SCAN:
            scans += 1
            stop = SCAN_END.search(data, position)
            position = stop.start() if stop else len(data)
    return len(data) if scans == 1 else None


class StrictJpegFile(JpegImagePlugin.JpegImageFile):
    """Pillow's reader, but it refuses a picture whose last row is not in the data:
    libjpeg paints grey what is missing and only warns.

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
        self._end = one_scan_end(self._data)
        self._mark = os.urandom(self.width * len(self.getbands()))
        if len(self._mark) < MARK_BYTES:
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
            raise Refused("is cut off or claims more rows than it has")
        self._end = None
        return b"\xff\xd9"

    def _last_row(self) -> bytes:
        box = (0, self.height - 1, self.width, self.height)
        return self._new(self.im.crop(box)).tobytes()


# -- what else stands in a file -----------------------------------------------------


def read_texts(data: bytes, most: int) -> bytes:
    """The texts of a PNG by their keywords, as JSON; none of another kind of file."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # As a refused picture may have left it.
    image = open_image(data)
    check_size(image)
    found = image.text if isinstance(image, PngImagePlugin.PngImageFile) else {}
    texts = json.dumps(found).encode()
    if len(texts) > most:
        raise Refused(f"has more text than the {most >> 10} KiB that are read")
    return texts


MEDIA_TYPES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"RIFF", "image/webp"),
    (b"GIF8", "image/gif"),
    (b"II", "image/tiff"),
    (b"MM", "image/tiff"),
)


@functools.cache
def open_library() -> tuple[Any, Any]:
    """c2pa-python, and how it reads: it fetches nothing and draws no thumbnails."""
    import c2pa

    verify = {"remote_manifest_fetch": False, "ocsp_fetch": False}
    settings = {"builder": {"thumbnail": {"enabled": False}}, "verify": verify}
    return c2pa, c2pa.Context.from_dict(settings)


def read_credentials(data: bytes, most: int) -> bytes:
    """The archive of a file's credentials, b"" where it has none; Refused where they
    cannot be read or are larger than ``most``."""
    described, _, file = data.partition(b"\n")
    if (kind := media_type(file)) is None:
        return b""
    library, context = open_library()
    archive = BytesIO()
    try:
        if library.Reader.try_create(kind, BytesIO(file), context=context) is None:
            return b""
        builder = library.Builder.from_json("{}", context)
        builder.add_ingredient(described.decode(), kind, BytesIO(file))
        builder.write_ingredient_archive(json.loads(described)["label"], archive)
    except Exception:  # the library's own, and MemoryError
        raise Refused("are damaged") from None
    if archive.tell() > most:
        raise Refused(f"take more than the {most >> 10} KiB that there is room for")
    return archive.getvalue()


def media_type(data: bytes) -> str | None:
    """That of a file that can have credentials, by its first bytes."""
    if data[4:8] == b"ftyp":
        return "image/avif" if data[8:12] in (b"avif", b"avis") else "image/heic"
    return next((kind for start, kind in MEDIA_TYPES if data.startswith(start)), None)


TELLERS = {CREDENTIALS: read_credentials, TEXTS: read_texts}

# -- the process --------------------------------------------------------------------


def lock_down() -> list[str]:
    """Give away what a decoder does not need; which parts the kernel did not take."""
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 16),
    ):
        resource.setrlimit(limit, (most, most))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    missing = []
    if libc.unshare(0x10000000 | 0x40000000):  # CLONE_NEWUSER, CLONE_NEWNET
        missing.append("network")
    if not deny_files(libc):
        missing.append("files")
    return missing


def deny_files(libc: ctypes.CDLL) -> bool:
    """Whether Landlock (Linux 5.13, documented in landlock(7)) now refuses to open any
    file, and with newer kernels to connect or listen, and to signal others."""
    create_ruleset, restrict_self, no_new_privileges = 444, 446, 38
    version: int = libc.syscall(create_ruleset, None, 0, 1)
    if version < 1:
        return False
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    known = 1 + (version >= 4) + (version >= 6)
    rights = (ctypes.c_uint64 * known)(*(files, 3, 3)[:known])
    size = ctypes.sizeof(rights)
    ruleset: int = libc.syscall(create_ruleset, rights, size, 0)
    if ruleset < 0 or libc.prctl(no_new_privileges, 1, 0, 0, 0):
        return False
    done: int = libc.syscall(restrict_self, ruleset, 0)
    os.close(ruleset)
    return done == 0


def load_codecs() -> None:
    """Let Pillow import now what it imports at first use, and HEIC's reader where the
    operator installed it."""
    with contextlib.suppress(ImportError):
        import pillow_heif  # type: ignore[import-not-found, unused-ignore]

        pillow_heif.options.DECODE_THREADS = 1
        READERS.append(pillow_heif.HeifImageFile)
        HEIF_BRANDS.clear()  # What is not read then is damaged.
    for name in ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"):
        file = BytesIO()
        Image.new("RGB", (16, 16)).save(file, name)
        decode(file.getvalue(), IMAGE, 64)


def answer(data: bytes, wanted: int, most: int) -> tuple[bytes, ...]:
    """The header and the bytes of the answer to one file."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
    try:
        if wanted in TELLERS:
            told = TELLERS[wanted](data, most)
            return HEADER.pack(TOLD, len(told), 0), told
        picture = decode(data, wanted, most)
    except Refused as error:
        text = str(error).encode()
    except MemoryError:
        text = b"needs more memory than a picture may have"
    except Exception:  # Pillow raises nearly anything on damaged files.
        text = b"is damaged or not a supported image"
    else:
        alpha = picture.info["alpha"]
        kind = RGB if wanted == IMAGE else ALPHA if alpha else GREY
        own = SIZE.pack(*picture.info["size"])
        return HEADER.pack(kind, *picture.size), own, picture.tobytes()
    return HEADER.pack(REFUSED, len(text), 0), text


def main(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer one file after the other until the input ends."""
    Image.MAX_IMAGE_PIXELS = None  # check_size is stricter.
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = TEXT_BYTES
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    warnings.simplefilter("ignore")
    load_codecs()
    if len(sys.argv) > 2:
        open_library()
    missing = " ".join(lock_down()).encode()
    sink.write(HEADER.pack(REFUSED, len(missing), 0) + missing)
    sink.flush()
    while len(head := source.read(HEADER.size)) == HEADER.size:
        wanted, most, length = HEADER.unpack(head)
        for part in answer(source.read(length), wanted, most):
            sink.write(part)
        sink.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
