"""Random inputs for as long as wanted: ``python -m tests.fuzz --seconds 600``.

A target is a function that draws an input from the given generator and raises if it
is treated wrongly. A failure prints the seed that draws the same input again:
``python -m tests.fuzz --seed 1234 decoder``.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import random
import socket
import sys
import time
import traceback

from PIL import Image

from flux_api.errors import FluxError, ImageFetchFailed, InvalidImage, InvalidRequest
from flux_api.images.data_urls import decode_base64, decode_data_url
from flux_api.images.decoder import Decoder
from flux_api.images.masks import read_mask
from flux_api.net.addresses import is_special
from flux_api.net.fetch import Fetcher, FetchPolicy
from flux_api.net.urls import UrlError, parse_url
from tests.support import fuzz_requests, hostile_images
from tests.support.processes import memory_of

TARGETS = {}
SLOWEST_SECONDS = 20
# Costly pictures are the child's: this process stays as it is.
LARGEST_MEGABYTES = 500
# Accepted pictures and refused ones: damage starts near both. None is larger than this.
SEED_BYTES = 20_000


def target(name):
    def register(function):
        TARGETS[name] = function
        return function

    return register


def load_seeds():
    builders = [
        *hostile_images.PLAIN.values(),
        *hostile_images.REFUSED.values(),
        *hostile_images.ODD.values(),
    ]
    seeds = [build() for build in builders]
    profile = hostile_images.icc_profile()
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        image = hostile_images.plain()
        seeds.append(hostile_images.save(image, kind, icc_profile=profile))
        if kind != "TIFF":
            block = hostile_images.exif(6)
            seeds.append(hostile_images.save(image, kind, exif=block))
    return [seed for seed in seeds if 0 < len(seed) <= SEED_BYTES]


SEEDS = load_seeds()
DECODER = Decoder()
NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1]


def damage(source, data):
    """The bytes with a few changes of the kinds that parsers stumble over."""
    data = bytearray(data)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(data) + 1)
        size = source.choice([1, 2, 4, 8])
        order = source.choice(["big", "little"])
        number = source.choice(NUMBERS) % 256**size
        other = source.choice(SEEDS)
        start = source.randrange(len(other))
        piece = other[start : start + source.choice([4, 12, 64, 1024])]
        match source.randrange(6):
            case 0:
                data[at : at + size] = source.randbytes(size)
            case 1:
                data[at : at + size] = number.to_bytes(size, order)
            case 2:
                del data[at : at + source.choice([1, 4, 100, 10_000])]
            case 3:
                data[at:at] = piece
            case 4:
                data[at : at + len(piece)] = piece
            case 5:
                data[at:at] = data[at : at + size] * source.choice([1, 2, 1000])
    return bytes(data[:1_000_000])


@target("decoder")
def fuzz_decoder(source):
    data = damage(source, source.choice(SEEDS))
    try:
        image = DECODER.image(data)
    except InvalidImage as error:
        assert len(error.message) < 150, error.message
        return
    assert image.mode == "RGB", image.mode
    assert 0 < image.width * image.height <= 40_000_000, image.size
    # Nothing of a stranger's but a size.
    assert image.info.keys() <= {"original_size"}, image.info


@target("mask")
def fuzz_mask(source):
    data = damage(source, source.choice(SEEDS))
    try:
        mask, _ = read_mask(DECODER, data, picture=Image.new("L", (40, 24)))
    except InvalidImage:
        return
    assert (mask.mode, mask.size) == ("L", (40, 24))


TEXT = "data:image/png;base64,AbC+/-_=%2B%3d \r\n\t\0\u3042\udcff,;"


@target("data-url")
def fuzz_data_url(source):
    text = "".join(source.choices(TEXT, k=source.randrange(60)))
    for decode in (decode_data_url, decode_base64):
        for start in ("", "data:image/png;base64,"):
            try:
                assert decode(start + text, param="image")
            except InvalidImage:
                continue


WORDS = "http https localhost example.com xn-- user pass a 0 1 10 80 65536 127 169.254"
MARKS = ": // / ? # @ [ ] % . .. : - _ ; & = + \\ %00 %2e %2f 0x7f 0177 2130706433"
OTHERS = "::1 ::ffff: fe80:: 64:ff9b:: \u3002 \uff11 \u2460 \u00df \u3042 \udcff"
PIECES = [*WORDS.split(), *MARKS.split(), *OTHERS.split(), " ", "\r\n", "\0"]


def draw_url(source):
    pieces = source.choices(PIECES, k=source.randrange(1, 9))
    return source.choice(["", "http://", "https://", "//"]) + "".join(pieces)


@target("url")
def fuzz_url(source):
    text = draw_url(source)
    try:
        url = parse_url(text)
    except UrlError:
        return
    assert url.scheme in ("http", "https") and 0 < url.port < 65_536
    assert not set(url.host) & set("@/\\?#% \r\n\0"), url.host
    assert url.target.startswith("/") and url.target.isascii()
    assert not any(ord(c) <= 32 or ord(c) == 127 for c in url.target), url.target
    assert parse_url(str(url)).origin == url.origin


class Dialled(BaseException):
    """A connection was tried; no handler of ours may swallow it."""


def forbid_special(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        if is_special(ipaddress.ip_address(args[1][0])):
            raise Dialled(args[1])
        raise ConnectionRefusedError("fuzzing dials nobody")


def resolve_numeric(host, port, **options):
    """Every spelling of an address, without asking a name server."""
    return socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST, **options)


@target("fetch")
def fuzz_fetch(source):
    try:
        FETCHER.fetch(draw_url(source))
    except (ImageFetchFailed, InvalidRequest, InvalidImage):
        return
    raise AssertionError("something was fetched")


TARGETS |= fuzz_requests.TARGETS
FETCHER = Fetcher(FetchPolicy(2**20, total_seconds=2), resolve=resolve_numeric)


def peak_megabytes():
    """The most memory that this process had; getrusage's is that of whoever started it,
    where that was more."""
    return memory_of("self", "VmHWM")


def run_once(name, seed):
    """Whether the input of this seed is treated right; the report is printed."""
    started = time.monotonic()
    try:
        TARGETS[name](random.Random(seed))
    except (Exception, Dialled) as error:
        if isinstance(error, FluxError):
            print(f"{name}: an error that the target does not expect")
        traceback.print_exc()
        print(f"again: python -m tests.fuzz --seed {seed} {name}")
        return False
    seconds = time.monotonic() - started
    megabytes = peak_megabytes()
    if seconds > SLOWEST_SECONDS or megabytes > LARGEST_MEGABYTES:
        print(f"{name}, seed {seed}: {seconds:.1f} s, {megabytes:.0f} MB at most")
        return False
    return True


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Feed random inputs to the parsers.")
    parser.add_argument("targets", nargs="*", help=f"of: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=60, help="how long, in all")
    parser.add_argument("--count", type=int, default=0, help="this many at least")
    parser.add_argument("--seed", type=int, help="one input only: the one of this seed")
    options = parser.parse_args(arguments)
    names = options.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    sys.addaudithook(forbid_special)
    if options.seed is not None:
        return 0 if all(run_once(name, options.seed) for name in names) else 1
    logging.disable()
    counts = dict.fromkeys(names, 0)
    seed = random.SystemRandom().getrandbits(40)
    end = time.monotonic() + options.seconds
    while time.monotonic() < end or min(counts.values()) < options.count:
        for name in names:
            if not run_once(name, seed + counts[name]):
                return 1
            counts[name] += 1
    print("nothing found:", ", ".join(f"{name} {n}" for name, n in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
