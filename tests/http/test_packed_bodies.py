"""Bodies that came packed with gzip, at their very bounds."""

from __future__ import annotations

import gzip
import struct
import zlib

import pytest
from flask import request

from flux_api.errors import InvalidRequest, NotJson, PayloadTooLarge
from flux_api.http.bodies import read_body
from flux_server.incoming import CountedInput
from tests.support.fuzz_requests import bare_app

MIB = 1 << 20


def packed(data, size=None):
    """``data`` as gzip of ``size`` bytes, filled up by the name that it says of
    itself."""
    deflated = zlib.compress(data, wbits=-zlib.MAX_WBITS)
    end = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFF_FFFF)
    bare = 10 + len(deflated) + len(end)
    if size is None:
        return gzip.compress(data)
    name = b"n" * (size - bare - 1) + b"\0"
    return b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + name + deflated + end


def read(data, *, most=64 * MIB, encoding="gzip"):
    """What ``read_body`` makes of these bytes where bodies may be ``most``."""
    environ = {"wsgi.input_terminated": True, "CONTENT_LENGTH": str(len(data))}
    with bare_app().test_request_context(
        method="POST",
        data=data,
        content_type="application/json",
        headers={"Content-Encoding": encoding},
        environ_overrides=environ,
    ):
        request.max_content_length = most
        request.environ["wsgi.input"] = CountedInput(request.environ, 5)
        return read_body(request)


def json_of(size):
    """An object of ``size`` bytes."""
    return b'{"image":"' + b"A" * (size - 12) + b'"}'


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZIP "])
def test_both_names_of_gzip_are_read(encoding):
    assert read(packed(b'{"prompt":"a"}'), encoding=encoding).values == {"prompt": "a"}


def test_what_is_small_may_pack_to_anything():
    assert read(packed(json_of(4 * MIB)))
    with pytest.raises(PayloadTooLarge, match="20 times its size"):
        read(packed(json_of(4 * MIB + 1)))


def test_what_is_large_unpacks_to_twenty_times_its_size_at_most():
    data = json_of(5 * MIB)
    assert read(packed(data, len(data) // 20))
    with pytest.raises(PayloadTooLarge, match="20 times its size"):
        read(packed(data, len(data) // 20 - 1))


def test_nothing_unpacks_to_more_than_may_be_sent():
    assert read(packed(json_of(MIB)), most=MIB)
    with pytest.raises(PayloadTooLarge, match="larger than 1 MiB"):
        read(packed(json_of(MIB + 1)), most=MIB)


def test_what_is_cut_off_or_no_gzip_is_told():
    whole = packed(b'{"prompt":"a"}')
    for data, words in ((whole[:-1], "was cut off"), (b"{}", "not valid gzip")):
        with pytest.raises(InvalidRequest, match=words):
            read(data)
    with pytest.raises(NotJson):
        read(packed(b"{"))
