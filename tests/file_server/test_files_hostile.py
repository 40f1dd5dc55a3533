"""Hostile requests, one for each fact about names and files; the server lives on."""

from __future__ import annotations

import os
import socket
import uuid
from urllib.parse import quote

import pytest

from tests.file_server.serving import AUTH, fact, picture, sealed

ID = "0123456789abcdef0123456789abcdef"

NAMES = {
    "6-id-traversal": "../../../../etc/passwd",
    "6-id-traversal-encoded": "..%2f..%2f..%2fetc%2fpasswd",
    "6-id-traversal-twice": "%252e%252e%252fetc%252fpasswd",
    "6-id-backslash": "..%5c..%5cwindows",
    "6-id-absolute": "%2fetc%2fpasswd",
    "6-id-nul": f"{ID}.png%00",
    "6-id-nul-inside": f"{ID}%00.png",
    "6-id-newline": f"{ID}.png%0a",
    "6-id-dotfile": ".lock",
    "6-id-part": f".{ID}.png.part",
    "6-id-part-plain": f"{ID}.part",
    "6-id-latest-mark": "latest.json",
    "6-id-long": "a" * 3000 + ".png",
    "6-id-upper-case": f"{ID.upper()}.png",
    "6-id-short": f"{ID[1:]}.png",
    "6-id-other-digits": quote(f"٣{ID[1:]}.png"),
    "6-id-bad-utf8": f"{ID[1:]}%ff.png",
    "6-id-no-extension": ID,
    "6-id-other-extension": f"{ID}.html",
    "6-id-webm": f"{ID}.webm",
    "6-id-two-extensions": f"{ID}.png.html",
    "6-id-dot": "%2e",
    "6-id-stream": f"{ID}.png::$DATA",
}


def good_request_works(server):
    path = server.stored(picture(uuid.uuid4()))
    assert server.latest_path() == path
    assert server.get("/latest/raw", headers=AUTH).content == server.get(path).content


def assert_refused(server, name):
    # By hand: clients tidy such addresses up before they send them.
    answer = server.exchange(
        f"GET /i/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 404 ")
    body = answer.partition(b"\r\n\r\n")[2]
    assert body.startswith(b'{"error":"')
    assert b"root:" not in body


@pytest.mark.parametrize("case", NAMES)
def test_a_hostile_name_is_404(server, case):
    assert_refused(server, NAMES[case])
    good_request_works(server)


def a_link(path, target):
    path.symlink_to(target)


def a_dangling_link(path, target):
    path.symlink_to(target.with_name("nowhere"))


def a_hard_link(path, target):
    path.hardlink_to(target)


def a_fifo(path, target):
    os.mkfifo(path)


def a_folder(path, target):
    path.mkdir()


def a_socket(path, target):
    with socket.socket(socket.AF_UNIX) as one:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            # Its address may have only about a hundred letters.
            one.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


NO_FILES = {
    "6-symlink": a_link,
    "6-symlink-dangling": a_dangling_link,
    "6-hardlink": a_hard_link,
    "6-fifo": a_fifo,
    "6-directory": a_folder,
    "6-socket": a_socket,
}


@pytest.mark.parametrize("case", NO_FILES)
def test_what_is_no_plain_file_is_never_served(serve, folder, tmp_path, case):
    server = serve(**folder.settings)
    kept = server.stored(sealed(1))
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture("secret"))
    NO_FILES[case](folder.path / f"{ID}.png", secret)
    assert_refused(server, f"{ID}.png")
    # Nor does it become the latest when the mark is lost.
    folder.remove("latest.json")
    assert server.latest_path() == kept
    good_request_works(server)


@fact("6-latest-mark-link")
def test_a_mark_that_is_a_link_is_not_followed(serve, folder, tmp_path):
    server = serve(**folder.settings)
    path = server.stored()
    mark = folder.path / "latest.json"
    os.rename(mark, tmp_path / "mark")
    mark.symlink_to(tmp_path / "mark")
    (tmp_path / "mark").write_text("{}")
    assert server.latest_path() == path
    good_request_works(server)
    assert not mark.is_symlink()
    assert (tmp_path / "mark").read_text() == "{}"


RAW = {
    "6-id-5-kb": b"GET /i/" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "no-host-1.0": b"GET /latest HTTP/1.0\r\n"
    b"Authorization: Bearer a+long/token==\r\n\r\n",
    "absolute-address": b"GET http://evil.example/healthz HTTP/1.1\r\nHost: x\r\n"
    b"Connection: close\r\n\r\n",
    "two-lengths": b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
    b"Content-Length: 30\r\n\r\nabc",
    "negative-length": b"POST /upload HTTP/1.1\r\nHost: x\r\n"
    b"Content-Length: -1\r\n\r\n",
    "length-and-chunks": b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no-http": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
    "huge-header": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("case", RAW)
def test_broken_http_never_stops_the_server(server, case):
    answer = server.exchange(RAW[case], half_close=True)
    assert not answer.startswith(b"HTTP/1.1 5")
    assert b"Traceback" not in answer
    good_request_works(server)


SLOW = {"FILES_BODY_TIMEOUT": "1"}
HEAD = (
    b"POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    b"Content-Length: 90000\r\n"
)


@pytest.mark.parametrize(
    ("settings", "kind", "status"),
    [
        ({}, b"Content-Type: multipart/form-data; boundary=cut\r\n", 408),
        ({"UPLOAD_TOKEN": "needed"}, b"", 401),
        ({}, b"", 400),
    ],
    ids=["read", "refused", "of-another-kind"],
)
def test_uploads_that_stop_hold_no_thread_for_good(
    serve, folder, settings, kind, status
):
    """More of them than the server has threads."""
    server = serve(**folder.settings, **settings, **SLOW)
    address = server.url.removeprefix("http://").split(":")
    waiting = [socket.create_connection(address, 30) for _ in range(20)]
    try:
        for connection in waiting:
            connection.sendall(HEAD + kind + b"\r\n--cut")
        assert server.get("/healthz").ok
        for connection in waiting:
            answer = connection.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 %d " % status)
    finally:
        for connection in waiting:
            connection.close()
    assert server.get("/healthz").ok
