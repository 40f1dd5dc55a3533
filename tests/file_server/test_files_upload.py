"""Uploading: what is stored and under which name, what is refused and how."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import requests
from botocore.exceptions import ClientError
from PIL import Image

from file_server.errors import StorageFull, StorageUnavailable
from file_server.s3 import S3Storage
from tests.file_server.serving import PNG_MAGIC, fact, picture, sealed

TYPES = {
    "PNG": ("png", "image/png"),
    "JPEG": ("jpg", "image/jpeg"),
    "WEBP": ("webp", "image/webp"),
    "GIF": ("gif", "image/gif"),
    "BMP": ("bmp", "image/bmp"),
    "TIFF": ("tiff", "image/tiff"),
    "AVIF": ("avif", "image/avif"),
}


def test_a_page_of_another_site_stores_nothing(server):
    """It cannot read the answer, but /latest would be its picture."""
    refused = server.upload(headers={"Sec-Fetch-Site": "cross-site"})
    assert refused.status_code == 403
    assert "other sites" in refused.json()["error"]
    assert server.upload(headers={"Sec-Fetch-Site": "same-origin"}).ok
    # To plain http on another machine browsers send the origin alone.
    for origin, status in (("http://evil.test", 403), ("null", 403), (server.url, 200)):
        assert server.upload(headers={"Origin": origin}).status_code == status


@pytest.mark.parametrize("refused", [".json", "latest.json"])
def test_of_an_upload_that_a_bucket_refuses_half_way_nothing_is_left(refused):
    class Bucket(dict):
        """A client of an S3 service that takes no object of the ``refused`` name."""

        def put_object(self, *, Bucket, Key, Body, **_):
            if Key.endswith(refused):
                raise ClientError({"Error": {"Code": "SlowDown"}}, "PutObject")
            self[Key] = Body

        def delete_object(self, *, Bucket, Key):
            self.pop(Key, None)

    bucket = Bucket()
    with pytest.raises(StorageUnavailable):
        S3Storage("b", client=bucket).save(io.BytesIO(PNG_MAGIC), "png", b"{}")
    assert not bucket


def test_uploads_that_are_under_way_count_among_what_a_bucket_may_hold():
    together = threading.Barrier(2, timeout=10)

    class Bucket:
        """A client of an S3 service that takes two pictures at a time."""

        stored = []

        def put_object(self, *, Key, **_):
            if not Key.endswith(".json"):
                together.wait()
                now = datetime.now(UTC)
                self.stored.append({"Key": Key, "Size": 10, "LastModified": now})

        def get_paginator(self, _):
            return self

        def paginate(self, **_):
            return [{"Contents": list(self.stored)}]

    storage = S3Storage("b", client=Bucket(), max_total=25)

    def save(_):
        try:
            return storage.save(io.BytesIO(bytes(10)), "png")
        except StorageFull:
            return None

    with ThreadPoolExecutor(6) as pool:
        saved = list(pool.map(save, range(6)))
    assert sum(map(bool, saved)) == 2


NO_IMAGES = {
    "html": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>',
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "zip": b"PK\x03\x04" + bytes(40),
    "elf": b"\x7fELF" + bytes(60),
    "text-BM": b"BM is how this text begins, as a bitmap does",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1",
    "mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
    "wav": b"RIFF\x24\0\0\0WAVEfmt ",
    "webm": b"\x1aE\xdf\xa3\x01\0\0\0",
    "half-a-signature": PNG_MAGIC[:7],
    "one-byte": b"\0",
    "gzip-of-png": gzip.compress(PNG_MAGIC),
    "png-behind-a-blank": b" " + PNG_MAGIC,
}


def multipart(
    name="file", filename='; filename="a.png"', data=PNG_MAGIC, encoding="utf-8"
):
    """A multipart body with the boundary 'cut', written by hand."""
    head = f'--cut\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'
    return head.encode(encoding) + data + b"\r\n--cut--\r\n"


def request_head(length, path="/upload"):
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=cut\r\n{length}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("kind_of_picture", TYPES)
def test_each_format_comes_back_unchanged_with_its_true_type(server, kind_of_picture):
    extension, media_type = TYPES[kind_of_picture]
    data = picture(kind_of_picture, 33, kind_of_picture)
    # The name and the type that the sender claims count for nothing.
    files = {"file": ("../../x.html", data, "text/html")}
    answer = requests.post(f"{server.url}/upload", files=files, timeout=30)
    assert answer.status_code == 200
    assert list(answer.json()) == ["url"]
    assert re.fullmatch(rf"/i/[0-9a-f]{{32}}\.{extension}", answer.json()["url"])
    fetched = server.get(answer.json()["url"])
    assert fetched.content == data
    assert fetched.headers["Content-Type"] == media_type
    assert "Content-Disposition" not in fetched.headers


def test_curl_uploads_and_fetches_as_the_readme_shows(server, tmp_path):
    (tmp_path / "sample.png").write_bytes(picture("curl"))
    sent = subprocess.run(
        ["curl", "-sS", f"{server.url}/upload", "-F", "file=@./sample.png"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    path = json.loads(sent.stdout)["url"]
    subprocess.run(["curl", "-sS", "-O", server.url + path], cwd=tmp_path, check=True)
    with Image.open(tmp_path / path.removeprefix("/i/")) as image:
        assert image.size == (400, 400)


def test_the_same_picture_twice_gets_two_names(server):
    assert server.stored(picture("twin")) != server.stored(picture("twin"))


@pytest.mark.parametrize("what", NO_IMAGES)
@fact("6-415")
def test_what_is_no_image_is_refused_with_415(server, place, what):
    before = place.names()
    answer = server.upload(NO_IMAGES[what])
    assert answer.status_code == 415
    assert list(answer.json()) == ["error"]
    assert place.names() == before


EMPTY = {
    "no-body": {},
    "no-multipart": {"data": PNG_MAGIC, "headers": {"Content-Type": "image/png"}},
    "urlencoded": {"data": {"file": "x"}},
    "json": {"json": {"file": "x"}},
    "other-field": {"files": {"image": ("a.png", PNG_MAGIC)}},
    "empty-file": {"files": {"file": ("a.png", b"")}},
    "no-filename": {"files": {"file": (None, PNG_MAGIC)}},
    "no-boundary": {
        "data": multipart(),
        "headers": {"Content-Type": "multipart/form-data"},
    },
    "other-boundary": {
        "data": multipart(),
        "headers": {"Content-Type": "multipart/form-data; boundary=other"},
    },
    "not-multipart-at-all": {
        "data": b"\0" * 1000,
        "headers": {"Content-Type": "multipart/form-data; boundary=cut"},
    },
}


@pytest.mark.parametrize("what", EMPTY)
def test_an_empty_or_missing_file_is_400(server, what):
    answer = requests.post(f"{server.url}/upload", timeout=30, **EMPTY[what])
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert server.upload().status_code == 200


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\0.png", "/abs", "x" * 4000])
def test_file_names_of_the_sender_are_never_used(server, place, name):
    files = {"file": (name, picture(), "image/png")}
    answer = requests.post(f"{server.url}/upload", files=files, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["url"].removeprefix("/i/") in place.names()


@pytest.mark.parametrize("encoding", ["utf-8", "shift_jis", "euc_jp"])
def test_the_name_of_a_file_may_be_in_any_encoding(server, encoding):
    # In Shift_JIS the second of these ends in the byte of a backslash.
    name = '; filename="\u732b\u8868.png"'.encode(encoding).decode("latin-1")
    data = sealed(1)
    answer = requests.post(
        f"{server.url}/upload",
        data=multipart(filename=name, data=data, encoding="latin-1"),
        headers={"Content-Type": "multipart/form-data; boundary=cut"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    assert server.get(answer.json()["url"]).content == data


@pytest.mark.parametrize("extra", [1, 300_000, 20_000_000])
def test_too_large_is_413_that_the_sender_can_read(server, extra):
    answer = server.upload(PNG_MAGIC + bytes(1024 * 1024 - 8 + extra))
    assert answer.status_code == 413
    told = {"error": "The upload is larger than this server accepts."}
    assert answer.json() == told
    assert server.upload().status_code == 200


def test_a_sender_who_reads_only_at_the_end_sees_413_too(server):
    body = multipart(data=PNG_MAGIC + bytes(20_000_000))
    answer = server.exchange(request_head(f"Content-Length: {len(body)}") + body)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"error":"' in answer


def test_the_largest_allowed_file_is_taken(server):
    # Bytes without order: the form's parser works otherwise on long runs of one.
    data = sealed(1, 1024 * 1024 - 40)
    assert len(data) == 1024 * 1024
    assert server.get(server.stored(data)).content == data


def test_a_large_body_to_a_wrong_address_still_gets_its_json_404(server):
    answer = requests.post(f"{server.url}/nowhere", data=bytes(5_000_000), timeout=30)
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("size", [5000, 900_000])
def test_a_chunked_upload_works(server, size):
    data = PNG_MAGIC + bytes(size)
    body = multipart(data=data)
    pieces = (body[at : at + 7000] for at in range(0, len(body), 7000))
    answer = requests.post(
        f"{server.url}/upload",
        data=pieces,
        headers={"Content-Type": "multipart/form-data; boundary=cut"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    assert server.get(answer.json()["url"]).content == data


def test_a_chunked_upload_without_end_is_413(server):
    answer = requests.post(
        f"{server.url}/upload",
        data=(bytes(100_000) for _ in range(50)),
        headers={"Content-Type": "multipart/form-data; boundary=cut"},
        timeout=30,
    )
    assert answer.status_code == 413


CUT_BODY = multipart(data=PNG_MAGIC + bytes(3000))


@pytest.mark.parametrize("kept", [0, 20, 90, 2000, len(CUT_BODY) - 8])
@fact("0-5")
def test_a_cut_off_multipart_body_is_400(server, place, kept):
    before = place.names()
    head = request_head(f"Content-Length: {len(CUT_BODY)}")
    answer = server.exchange(head + CUT_BODY[:kept], half_close=True)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'{"error":"' in answer
    assert place.names() == before
    assert server.upload().status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"c00\r\n" + CUT_BODY[:2000], b"10\r\n" + CUT_BODY[:16] + b"\r\n", b"zz\r\n", b""],
    ids=["in-a-chunk", "between-chunks", "bad-size", "nothing"],
)
@fact("0-5")
def test_a_cut_off_chunked_body_is_400(server, place, body):
    before = place.names()
    head = request_head("Transfer-Encoding: chunked")
    answer = server.exchange(head + body, half_close=True)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert place.names() == before
    assert server.upload().status_code == 200


def test_a_form_of_very_many_parts_is_refused(server):
    part = b'--cut\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n'
    answer = requests.post(
        f"{server.url}/upload",
        data=part * 3000 + multipart(),
        headers={"Content-Type": "multipart/form-data; boundary=cut"},
        timeout=30,
    )
    assert answer.status_code == 413
    assert server.upload().status_code == 200


@fact("6-upload-token")
def test_uploads_need_the_upload_token_once_it_is_set(serve, folder):
    server = serve(UPLOAD_TOKEN="合言葉=é=", **folder.settings)
    big = PNG_MAGIC + bytes(3_000_000)
    for data in (None, big):
        missing = server.upload(data)
        assert missing.status_code == 401
        assert missing.headers["WWW-Authenticate"] == "Bearer"
        for token in ("no", "合言葉", "a+long/token=="):
            header = {"Authorization": f"Bearer {token}".encode()}
            assert server.upload(data, headers=header).status_code == 403
    assert not folder.names()
    right = server.upload(headers={"Authorization": "Bearer 合言葉=é=".encode()})
    assert right.status_code == 200
    assert server.get(right.json()["url"]).status_code == 200
