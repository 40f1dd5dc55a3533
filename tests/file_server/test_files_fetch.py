"""Fetching: caching, conditions, ranges, HEAD, and what every answer carries."""

from __future__ import annotations

import io
import os
import uuid

import pytest
import requests

from tests.file_server.serving import AUTH, PNG_MAGIC, SAFE, fact, picture, sealed


@pytest.fixture(scope="module")
def stored(shared):
    """A picture of 100,040 bytes on the running server: its address and bytes."""
    data = sealed(7)
    return shared[0].stored(data), data


@fact("6-immutable", "6-etag", "6-headers")
def test_a_file_may_be_kept_for_a_year_and_embedded_anywhere(server, stored):
    path, data = stored
    answer = server.get(path)
    assert answer.content == data
    assert (
        answer.headers.items()
        >= {
            **SAFE,
            "Content-Type": "image/png",
            "Content-Length": str(len(data)),
            "Cache-Control": "public, max-age=31536000, immutable",
            "ETag": f'"{path[3:35]}"',
            "Accept-Ranges": "bytes",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Access-Control-Allow-Origin": "*",
        }.items()
    )
    assert "Last-Modified" in answer.headers


@fact("6-head")
def test_head_tells_the_same_without_the_bytes(server, stored):
    path, data = stored
    full = server.get(path)
    answer = requests.head(server.url + path, timeout=30)
    assert (answer.status_code, answer.content) == (200, b"")
    changing = {"Date", "X-Request-Id"}
    for name in set(full.headers) - changing:
        assert answer.headers[name] == full.headers[name]


RANGES = {
    "bytes=0-0": slice(0, 1),
    "bytes=0-99": slice(0, 100),
    "bytes=500-599": slice(500, 600),
    "bytes=100-": slice(100, None),
    "bytes=-10": slice(-10, None),
    "bytes=100039-": slice(100_039, None),
    "bytes=99990-999999": slice(99_990, None),
    "bytes=-999999": slice(0, None),
    "bytes=-100041": slice(0, None),
}


@pytest.mark.parametrize("wanted", RANGES)
@fact("6-range")
def test_a_range_is_206_and_exact(server, stored, wanted):
    path, data = stored
    expected = data[RANGES[wanted]]
    answer = server.get(path, headers={"Range": wanted})
    assert answer.status_code == 206
    assert answer.content == expected
    assert answer.headers["Content-Length"] == str(len(expected))
    first, end, _ = RANGES[wanted].indices(len(data))
    assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(data)}"
    assert answer.headers["Content-Type"] == "image/png"


@pytest.mark.parametrize(
    "wanted", ["lines=1-2", "bytes=0-0,2-2", "bytes=a-b", "bytes=5-2", "bytes=-", "x"]
)
def test_a_range_that_is_none_is_passed_over(server, stored, wanted):
    path, data = stored
    answer = server.get(path, headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (200, data)


@pytest.mark.parametrize("wanted", ["bytes=100040-", "bytes=999999-1000000"])
@fact("6-range")
def test_a_range_past_the_end_is_416(server, stored, wanted):
    path, data = stored
    answer = server.get(path, headers={"Range": wanted})
    assert answer.status_code == 416
    assert answer.json() == {"error": "The file has no such range of bytes."}
    assert answer.headers["Content-Range"] == f"bytes */{len(data)}"
    assert server.get(path).content == data


@pytest.mark.parametrize("header", ["If-None-Match", "If-Modified-Since"])
@fact("6-304")
def test_an_unchanged_file_is_304(server, stored, header):
    path, data = stored
    full = server.get(path)
    kept = "ETag" if header == "If-None-Match" else "Last-Modified"
    answer = server.get(path, headers={header: full.headers[kept]})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == full.headers["ETag"]
    assert answer.headers["Cache-Control"] == full.headers["Cache-Control"]
    other = {"If-None-Match": '"0"', "If-Modified-Since": "Mon, 01 Jan 2001 00:00 GMT"}
    assert server.get(path, headers={header: other[header]}).content == data


@fact("6-range")
def test_a_range_of_another_version_gives_the_whole_file(server, stored):
    path, data = stored
    asked = {"Range": "bytes=0-9", "If-Range": '"another"'}
    answer = server.get(path, headers=asked)
    assert (answer.status_code, answer.content) == (200, data)
    asked["If-Range"] = answer.headers["ETag"]
    answer = server.get(path, headers=asked)
    assert (answer.status_code, answer.content) == (206, data[:10])


@pytest.mark.parametrize("etag", ['"0"', '"0", "1"'])
def test_a_condition_that_fails_is_412_without_the_file(server, stored, etag):
    path, _ = stored
    answer = server.get(path, headers={"If-Match": etag})
    assert answer.status_code == 412
    told = {"error": "The file does not meet the request's condition."}
    assert answer.json() == told


FOREIGN = {
    "html": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "empty": b"",
    "bytes": os.urandom(5000),
}


@pytest.mark.parametrize("what", FOREIGN)
@fact("6-attachment")
def test_what_lies_there_all_the_same_is_an_attachment(server, place, what):
    name = f"{uuid.uuid4().hex}.png"
    place.put(name, FOREIGN[what])
    answer = server.get(f"/i/{name}")
    assert (answer.status_code, answer.content) == (200, FOREIGN[what])
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == "attachment"
    assert answer.headers.items() >= SAFE.items()
    place.remove(name)
    assert server.get(f"/i/{name}").status_code == 404


@fact("6-sniffed")
def test_the_type_follows_the_bytes_whatever_the_name_says(server, place):
    name = f"{uuid.uuid4().hex}.png"
    place.put(name, picture(kind="WEBP"))
    assert server.get(f"/i/{name}").headers["Content-Type"] == "image/webp"
    place.remove(name)


def test_a_stored_file_is_read_from_any_place(place):
    data = sealed(3, 2000)
    storage = place.storage()
    file = storage.open(storage.save(io.BytesIO(data), "png"))
    with file.stream as stream:
        assert (stream.readable(), stream.seekable()) == (True, True)
        assert (stream.read(10), stream.tell()) == (data[:10], 10)
        assert stream.seek(5, io.SEEK_CUR) == 15
        assert (stream.read(5), stream.tell()) == (data[15:20], 20)
        assert stream.seek(-4, io.SEEK_END) == file.size - 4 == len(data) - 4
        assert stream.read() == data[-4:]
        assert stream.read(1) == b""
        assert stream.seek(0) == 0
        assert stream.read() == data


def test_hundreds_of_answers_leave_no_file_open(server, stored):
    path, _ = stored
    missing = f"/i/{'1' * 32}.png"
    etag = {"If-None-Match": f'"{path[3:35]}"'}

    def fetch_all():
        with requests.Session() as session:
            for headers in (
                {},
                etag,
                {"Range": "bytes=5-9"},
                {"Range": "bytes=9999999-"},
            ):
                session.get(server.url + path, headers=headers, timeout=30)
            session.head(server.url + path, timeout=30)
            session.get(server.url + missing, timeout=30)
            session.get(server.url + "/latest/raw", headers=AUTH, timeout=30)

    def open_files():
        pid = server.process.pid
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            [worker] = children.read().split()
        return len(os.listdir(f"/proc/{worker}/fd"))

    for _ in range(5):
        fetch_all()
    before = open_files()
    for _ in range(30):
        fetch_all()
    assert open_files() <= before + 4


def test_a_reader_who_leaves_early_hurts_nobody(server):
    path = server.stored(PNG_MAGIC + bytes(1_000_000))
    for _ in range(10):
        with requests.get(server.url + path, stream=True, timeout=30) as answer:
            assert answer.raw.read(1000)
    assert len(server.get(path).content) == 1_000_008
