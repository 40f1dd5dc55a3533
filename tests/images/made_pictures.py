"""A few hundred files of every kind that people send, all of the same small scene.

Each builder gives the bytes of one file. Pillow and libvips write them; what neither
writes is put together by hand.
"""

from __future__ import annotations

import itertools
import random
import struct
import zlib

import numpy as np
import pyvips
from PIL import Image, ImageCms

from tests.support.hostile_images import icc_profile, png_chunk
from tests.support.pictures import save

WIDTH, HEIGHT = 72, 48


def scene(mode="RGB"):
    """Soft colours that every format keeps: a ramp each way and a disc."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    disc = (x - 20) ** 2 + (y - 22) ** 2 < 14**2
    red = np.where(disc, 200, 40 + 2 * x)
    green = np.where(disc, 70, 60 + 3 * y)
    pixels = np.dstack([red, green, 230 - red // 2]).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode.endswith(("A", "a")):
        image.putalpha(Image.fromarray((255 - 2 * (x + y)).clip(0).astype(np.uint8)))
    return image.convert(mode)


def vips(image, suffix, **options):
    """The file's bytes, written by libvips."""
    return image.write_to_buffer(suffix, **options)


def vips_scene(mode="RGB"):
    """The scene as libvips holds it."""
    return pyvips.Image.new_from_array(np.asarray(scene(mode)))


def deep(bands=3):
    """The scene in 16 bits a sample."""
    image = vips_scene({1: "L", 3: "RGB", 4: "RGBA"}[bands])
    interpretation = "grey16" if bands == 1 else "rgb16"
    return (
        (image.cast("ushort") * 257).cast("ushort").copy(interpretation=interpretation)
    )


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _jpegs():
    for quality, sampling in itertools.product((75, 95), (0, 1, 2)):
        for progressive in (False, True):
            yield (
                f"jpeg q{quality} s{sampling} p{progressive:d}",
                save(
                    scene(),
                    "JPEG",
                    quality=quality,
                    subsampling=sampling,
                    progressive=progressive,
                ),
            )
    for orientation in range(1, 9):
        yield (
            f"jpeg turned {orientation}",
            save(scene(), "JPEG", quality=95, exif=_exif(orientation)),
        )
    yield "jpeg grey", save(scene("L"), "JPEG", quality=95)
    yield "jpeg restart", save(scene(), "JPEG", quality=95, restart_marker_rows=1)
    for interlace in (False, True):
        yield (
            f"jpeg by vips i{interlace:d}",
            vips(vips_scene(), ".jpg", Q=95, interlace=interlace),
        )


def _profiles():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
        yield f"{kind} srgb", save(scene(), kind, icc_profile=srgb, **options)
    for name in ("p3", "cmyk"):
        profile = pyvips.Image.profile_load(name)
        space = scene("CMYK") if name == "cmyk" else scene()
        for kind in ("JPEG", "TIFF") if name == "cmyk" else ("PNG", "JPEG", "TIFF"):
            options = {"quality": 95} if kind == "JPEG" else {}
            yield f"{kind} {name}", save(space, kind, icc_profile=profile, **options)


def _pngs():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = scene("L" if mode == "I;16" else mode)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        yield f"png {mode}", save(image, "PNG")
    for bits in (1, 2, 4):
        yield f"png palette {bits}", save(scene().quantize(2**bits), "PNG", bits=bits)
    for bands, interlace in itertools.product((1, 3, 4), (False, True)):
        yield (
            f"png 16 {bands} i{interlace:d}",
            vips(deep(bands), ".png", interlace=interlace),
        )
    for mode, interlace in itertools.product(("L", "RGB", "RGBA"), (False, True)):
        yield (
            f"png {mode} i{interlace:d}",
            vips(vips_scene(mode), ".png", interlace=interlace),
        )
    yield "png keyed", save(scene(), "PNG", transparency=(200, 70, 130))
    palette = scene().quantize(16)
    yield "png palette keyed", save(palette, "PNG", transparency=3)
    yield "png text", save(scene(), "PNG", pnginfo=_text())
    for orientation in (3, 6, 8):
        yield f"png turned {orientation}", save(scene(), "PNG", exif=_exif(orientation))
    yield "png many chunks", _split_png(save(scene(), "PNG"))


def _text():
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_itxt("parameters", "猫, <b>best</b> quality", zip=True)
    return text


def _split_png(data):
    """The same picture with its samples in pieces of 7 bytes."""
    out, at = bytearray(data[:8]), 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        pieces = [body]
        if kind == b"IDAT":
            pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
        for piece in pieces:
            check = zlib.crc32(kind + piece)
            out += struct.pack(">I", len(piece)) + kind + piece
            out += struct.pack(">I", check)
        at += 12 + length
    return bytes(out)


def _webps():
    for lossless, mode in itertools.product((False, True), ("RGB", "RGBA")):
        for method in (0, 4):
            yield (
                f"webp l{lossless:d} {mode} m{method}",
                save(scene(mode), "WEBP", lossless=lossless, quality=95, method=method),
            )
    frames = [scene(), scene("L").convert("RGB")]
    yield (
        "webp animated",
        save(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
    )
    for orientation in (3, 6):
        yield (
            f"webp turned {orientation}",
            save(scene(), "WEBP", lossless=True, exif=_exif(orientation)),
        )


def _tiffs():
    for packing in ("none", "lzw", "deflate", "packbits"):
        for tile, predictor in itertools.product((False, True), ("none", "horizontal")):
            yield (
                f"tiff {packing} t{tile:d} {predictor}",
                vips(
                    vips_scene(),
                    ".tif",
                    compression=packing,
                    tile=tile,
                    tile_width=16,
                    tile_height=16,
                    predictor=predictor,
                ),
            )
    yield "tiff jpeg", vips(vips_scene(), ".tif", compression="jpeg", Q=95)
    for bands in (1, 3, 4):
        yield f"tiff 16 {bands}", vips(deep(bands), ".tif")
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK"):
        yield f"tiff {mode}", save(scene(mode), "TIFF")
    yield "tiff big", vips(vips_scene(), ".tif", bigtiff=True)
    yield "tiff bilevel", vips(vips_scene("L"), ".tif", bitdepth=1)
    yield "tiff pyramid", vips(vips_scene(), ".tif", pyramid=True, tile=True)
    for orientation in (3, 6, 8):
        yield (
            f"tiff turned {orientation}",
            save(scene(), "TIFF", tiffinfo={274: orientation}),
        )


def _gifs():
    yield "gif", save(scene().quantize(256), "GIF")
    yield "gif keyed", save(scene().quantize(64), "GIF", transparency=5)
    yield "gif interlaced", save(scene().quantize(64), "GIF", interlace=1)
    yield (
        "gif animated",
        save(scene(), "GIF", save_all=True, append_images=[scene("L").convert("RGB")]),
    )
    yield "gif by vips", vips(vips_scene(), ".gif")


def _avifs():
    for quality, sampling in itertools.product((80, 100), ("4:2:0", "4:4:4")):
        yield (
            f"avif {quality} {sampling}",
            save(scene(), "AVIF", quality=quality, subsampling=sampling),
        )
    yield "avif alpha", save(scene("RGBA"), "AVIF", quality=90)
    for orientation in (3, 6, 8):
        yield (
            f"avif turned {orientation}",
            save(scene(), "AVIF", quality=95, exif=_exif(orientation)),
        )
    yield "avif by vips", vips(vips_scene(), ".avif", Q=90)


def _bmps():
    for mode in ("1", "L", "P", "RGB"):
        yield f"bmp {mode}", save(scene(mode), "BMP")
    samples = np.asarray(scene()).astype(np.uint32)
    red, green, blue = samples[..., 0], samples[..., 1], samples[..., 2]
    packed = (red >> 3 << 11) | (green >> 2 << 5) | (blue >> 3)
    for top_down in (False, True):
        yield (
            f"bmp 565 t{top_down:d}",
            _bmp(packed.astype("<u2"), 16, (0xF800, 0x7E0, 0x1F), top_down),
        )
        yield (
            f"bmp 8888 t{top_down:d}",
            _bmp(
                (red << 16 | green << 8 | blue).astype("<u4"),
                32,
                (0xFF0000, 0xFF00, 0xFF),
                top_down,
            ),
        )


def _bmp(rows, bits, masks, top_down):
    """A bitmap whose samples lie where ``masks`` say."""
    body = (rows if top_down else rows[::-1]).tobytes()
    height = -HEIGHT if top_down else HEIGHT
    head = struct.pack(
        "<IiiHHIIiiII", 40, WIDTH, height, 1, bits, 3, len(body), 2835, 2835, 0, 0
    )
    head += struct.pack("<III", *masks)
    start = 14 + len(head)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + head + body


def _wild():
    """What phones, scanners and old programs write, and strict readers refuse."""
    rest = random.Random(1).randbytes(1_500_000)
    wide = icc_profile(primaries="RGB", name="Display P3 Gamut with sRGB Transfer")
    jpeg = save(scene(), "JPEG", quality=95, icc_profile=wide)
    png = save(scene(), "PNG")
    yield "PNG p3 named with sRGB", save(scene(), "PNG", icc_profile=wide)
    yield "jpeg p3 named with sRGB", jpeg
    yield "jpeg profile behind the frame header", _late_profile(jpeg)
    yield "jpeg stray bytes", _with_stray_bytes(jpeg)
    for kind in ("PNG", "JPEG", "TIFF"):
        yield f"{kind} corrupt profile", save(scene(), kind, icc_profile=b"none" * 99)
    for kind in ("JPEG", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        block = _exif(1)[:-5] if kind == "JPEG" else b"Exif\0\0nonsense"
        yield f"{kind} corrupt exif", save(scene(), kind, exif=block, **options)
    yield "png large profile", save(scene(), "PNG", icc_profile=wide + rest)
    text = b"Raw\0" + rest.hex().encode()
    yield "png large text", png[:33] + png_chunk(b"tEXt", text) + png[33:]
    packed = b"Raw\0\0" + zlib.compress(text)
    yield "png large packed text", png[:33] + png_chunk(b"zTXt", packed) + png[33:]
    markup = b"parameters\0<html><script>alert(1)</script>, <lora:x:1>"
    yield "png markup", png[:33] + png_chunk(b"tEXt", markup) + png[33:]
    # Keyed: without, libvips gives no alpha, and black outside.
    small = save(scene().quantize(64), "GIF", transparency=5)
    canvas = struct.pack("<HH", WIDTH + 30, HEIGHT + 20)
    yield "gif smaller than its canvas", small[:6] + canvas + small[10:]
    yield "tiff premultiplied grey", _premultiplied_grey()
    yield "avif in idat", _avif(1, inside=True)
    yield "avif tiled", _avif(2, inside=False)
    yield "avif tiled in idat", _avif(2, inside=True)


def _late_profile(jpeg):
    """The same with its profile behind the frame's header."""
    start = jpeg.index(b"\xff\xe2")
    end = start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")
    frame = jpeg.index(b"\xff\xc0")
    behind = frame + 2 + int.from_bytes(jpeg[frame + 2 : frame + 4], "big")
    return jpeg[:start] + jpeg[end:behind] + jpeg[start:end] + jpeg[behind:]


def _with_stray_bytes(jpeg):
    """The same with bytes between its segments that belong to none."""
    out, at = bytearray(jpeg[:2]), 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        out += b"\0stray" + jpeg[at:end]
        at = end
    return bytes(out + jpeg[at:])


def _premultiplied_grey():
    """A TIFF that says so, which Pillow does not write."""
    grey, alpha = (np.asarray(band).astype(int) for band in scene("LA").split())
    samples = np.dstack([grey * alpha // 255, alpha]).astype(np.uint8)
    data = save(Image.fromarray(samples, "LA"), "TIFF")
    entry, wanted = (struct.pack("<HHLHH", 338, 3, 1, kind, 0) for kind in (2, 1))
    assert data.count(entry) == 1
    return data.replace(entry, wanted)


def _box(kind, *parts, version=None):
    head = b"" if version is None else struct.pack(">L", version << 24)
    body = head + b"".join(parts)
    return struct.pack(">L", 8 + len(body)) + kind + body


def _child_box(data, kind):
    """The first box of that kind, wherever it is."""
    start = data.index(kind) - 4
    return data[start : start + int.from_bytes(data[start : start + 4], "big")]


def _avif(tiles, *, inside):
    """``tiles`` pictures side by side that are one, with their data ``inside`` the box
    of descriptions or behind it. Every tile is 64 pixels square."""
    side = 64
    picture = Image.new("RGB", (side * tiles, side), "white")
    picture.paste(scene())
    parts = []
    for tile in range(tiles):
        left = side * tile
        part = picture.crop((left, 0, left + side, side))
        parts.append(save(part, "AVIF", quality=95, speed=8))
    data = [_child_box(part, b"mdat")[8:] for part in parts]
    kinds = [b"av01"] * tiles
    if tiles > 1:
        data.append(struct.pack(">BBBBHH", 0, 0, 0, tiles - 1, side * tiles, side))
        kinds.append(b"grid")
    known = [_child_box(parts[0], kind) for kind in (b"pixi", b"colr", b"av1C")]
    sizes = [
        _box(b"ispe", struct.pack(">LL", width, side), version=0)
        for width in (side, side * tiles)
    ]
    links = b"".join(
        # pixi, colr; av1C, which is essential; the size.
        struct.pack(">HB", number, 4 - (kind == b"grid"))
        + (b"\x01\x02\x05" if kind == b"grid" else b"\x01\x02\x83\x04")
        for number, kind in enumerate(kinds, 1)
    )
    about = [
        _box(b"hdlr", bytes(4), b"pict", bytes(13), version=0),
        _box(b"pitm", struct.pack(">H", len(kinds)), version=0),
        _box(
            b"iinf",
            struct.pack(">H", len(kinds)),
            *(
                _box(b"infe", struct.pack(">HH", number, 0), kind, b"\0", version=2)
                for number, kind in enumerate(kinds, 1)
            ),
            version=0,
        ),
        _box(
            b"iprp",
            _box(b"ipco", *known, *sizes),
            _box(b"ipma", struct.pack(">L", len(kinds)), links, version=0),
        ),
    ]
    if tiles > 1:
        numbers = struct.pack(f">HH{tiles}H", len(kinds), tiles, *range(1, tiles + 1))
        about.append(_box(b"iref", _box(b"dimg", numbers), version=0))
    start = _box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")

    def described(first):
        """The box of descriptions, with data that begins at ``first``."""
        places, at = b"", 0 if inside else first
        for number, piece in enumerate(data, 1):
            places += struct.pack(">HHHHLL", number, int(inside), 0, 1, at, len(piece))
            at += len(piece)
        where = _box(
            b"iloc", struct.pack(">BBH", 0x44, 0, len(data)), places, version=1
        )
        own = [_box(b"idat", *data)] if inside else []
        return _box(b"meta", *about, where, *own, version=0)

    first = len(start) + len(described(0)) + 8
    rest = b"" if inside else _box(b"mdat", *data)
    return start + described(first) + rest


KINDS = (_jpegs, _profiles, _pngs, _webps, _tiffs, _gifs, _avifs, _bmps, _wild)


def made_pictures():
    """All of them: name to bytes."""
    return dict(itertools.chain.from_iterable(kind() for kind in KINDS))
