"""The latest: newest by upload, whoever looks, whatever the clock does."""

from __future__ import annotations

import io
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import requests

from file_server.errors import FileMissing
from tests.file_server.serving import AUTH, PNG_MAGIC, fact, picture, sealed

GRANTED = {
    "token": "Bearer a+long/token==",
    "lower-case-scheme": "bearer a+long/token==",
    "blanks-around": "Bearer   a+long/token==  ",
}
REFUSED = {
    "nothing": (None, 401),
    "empty": ("", 401),
    "scheme-only": ("Bearer", 401),
    "basic": ("Basic a+long/token==", 401),
    "token-only": ("a+long/token==", 401),
    "wrong": ("Bearer wrong", 403),
    "longer": ("Bearer a+long/token==x", 403),
    "shorter": ("Bearer a+long/token=", 403),
    "default": ("Bearer changeme-token", 403),
    "two": ("Bearer a+long/token== a+long/token==", 403),
    "not-ascii": ("Bearer é".encode(), 403),
    "not-text": (b"Bearer \xff\xfe", 403),
    "very-long": ("Bearer " + "x" * 6000, 403),
}


@pytest.mark.parametrize(
    ("host", "trusted", "status"),
    [
        *(("localhost:8010", "", 200), ("127.0.0.1", "", 200), ("[::1]:8010", "", 200)),
        *(("files:8010", "", 200), ("nas.local", "", 200), ("evil.example", "", 403)),
        *(("a.example", "a.example", 200), ("b.example", "a.example", 403)),
    ],
)
def test_the_token_that_everybody_knows_counts_under_local_names(
    serve, folder, host, trusted, status
):
    """Else any page whose name leads here could read the newest picture."""
    named = {"FILES_TRUSTED_HOSTS": trusted} if trusted else {}
    server = serve(BEARER_TOKEN="changeme-token", **named, **folder.settings)
    server.stored()
    headers = {"Host": host, "Authorization": "Bearer changeme-token"}
    answer = server.get("/latest/raw", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert "FILES_TRUSTED_HOSTS" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/latest", "/latest/raw"])
@pytest.mark.parametrize("how", GRANTED)
def test_the_right_token_opens_the_latest(server, path, how):
    server.stored()
    answer = server.get(path, headers={"Authorization": GRANTED[how]})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/latest", "/latest/raw"])
@pytest.mark.parametrize("how", REFUSED)
@fact("6-token", "0-11")
def test_no_token_is_401_and_a_wrong_one_403(server, path, how):
    header, status = REFUSED[how]
    headers = {} if header is None else {"Authorization": header}
    answer = server.get(path + "?token=a%2Blong/token==", headers=headers)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert (answer.headers.get("WWW-Authenticate") == "Bearer") is (status == 401)
    assert server.get("/healthz").status_code == 200


@fact("6-latest-viewing")
def test_looking_at_an_older_picture_changes_nothing(server):
    older = server.stored(picture("older"))
    newer = server.stored(picture("newer"))
    before = server.latest().json()
    for _ in range(3):
        server.get(older)
        requests.head(server.url + older, timeout=30)
        server.get(older, headers={"Range": "bytes=0-1"})
    assert server.latest().json() == before
    assert before["url"].endswith(newer)
    raw = server.get("/latest/raw", headers=AUTH)
    assert raw.content == picture("newer")
    assert raw.headers["Content-Type"] == "image/png"
    head = requests.head(server.url + "/latest/raw", headers=AUTH, timeout=30)
    assert head.headers["Content-Length"] == str(len(raw.content))


@fact("6-jst")
def test_the_time_is_japans_and_the_moment_of_the_upload(server):
    before = datetime.now(UTC).replace(microsecond=0)
    path = server.stored()
    after = datetime.now(UTC)
    answer = server.latest().json()
    assert list(answer) == ["url", "updated_at"]
    assert answer["url"] == server.url + path
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+09:00", answer["updated_at"])
    assert before <= datetime.fromisoformat(answer["updated_at"]) <= after


def test_nothing_stored_yet_is_404(kind, new_place, serve):
    server = serve(**new_place(kind).settings)
    for path in ("/latest", "/latest/raw"):
        answer = server.get(path, headers=AUTH)
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]
    path = server.stored()
    assert server.latest_path() == path


@fact("6-latest-ties")
def test_among_fast_uploads_each_is_the_latest_in_its_turn(server):
    for number in range(20):
        assert server.stored(sealed(number, 50)) == server.latest_path()


@fact("6-latest-races")
def test_after_racing_uploads_the_latest_is_one_of_the_last(server):
    with ThreadPoolExecutor(8) as pool:
        early = list(pool.map(lambda n: server.stored(sealed(n)), range(24)))
        late = list(pool.map(lambda n: server.stored(sealed(n)), range(8)))
    assert server.latest_path() in late
    assert len({*early, *late}) == 32
    assert server.latest().json() == server.latest().json()


@pytest.mark.parametrize("worker", ["sync", "gthread"])
@fact("6-latest-processes")
def test_the_latest_is_one_for_all_worker_processes(serve, folder, worker):
    server = serve("-w", "3", "-k", worker, **folder.settings)
    for number in range(15):
        path = server.stored(sealed(number, 50))
        assert [server.latest_path() for _ in range(3)] == [path] * 3
    with ThreadPoolExecutor(6) as pool:
        stored = list(pool.map(lambda n: server.stored(sealed(n, 50)), range(12)))
        seen = set(pool.map(lambda _: server.latest_path(), range(12)))
    assert len(seen) == 1
    assert seen <= set(stored)


@fact("6-latest-restart", "W15-clock")
def test_the_latest_survives_a_restart_and_what_files_times_say(serve, folder):
    server = serve(TZ="America/New_York", **folder.settings)
    older, newer = server.stored(picture(1)), server.stored(picture(2))
    before = server.latest().json()
    # As if the clock had been far ahead when the older one came.
    os.utime(folder.path / older.removeprefix("/i/"), (4e9, 4e9))
    server.stop(signal.SIGKILL)
    server = serve(TZ="Pacific/Kiritimati", **folder.settings)
    after = server.latest().json()
    assert after["updated_at"] == before["updated_at"]
    assert after["url"] == server.url + newer


class Clock:
    """A clock in nanoseconds that tests set."""

    def __init__(self, now=1_800_000_000):
        self.now = now

    def __call__(self):
        return int(self.now * 1e9)


@fact("W15-clock")
def test_a_clock_that_jumps_back_does_not_change_what_is_latest(kind, new_place):
    clock = Clock()
    storage = new_place(kind).storage(clock=clock)
    names = []
    for jump in (0, -86_400, -3600, +7200, -10):
        clock.now += jump
        names.append(storage.save(io.BytesIO(PNG_MAGIC), "png"))
        assert storage.latest().name == names[-1]
        assert storage.latest().uploaded_at.timestamp() == clock.now


MARKS = {
    "gone": None,
    "empty": b"",
    "half": b'{"name": "0123',
    "no-object": b"[1, 2]",
    "no-name": b"{}",
    "path": b'{"name": "../../etc/passwd", "uploaded_ns": 1}',
    "missing-file": b'{"name": "%s.png", "uploaded_ns": 1}' % (b"0" * 32),
    "wild-time": b'{"name": "NAME", "uploaded_ns": 1e300}',
}


@pytest.mark.parametrize("mark", MARKS)
@fact("6-latest-mark-lost")
def test_without_a_usable_mark_the_newest_file_is_the_latest(kind, new_place, mark):
    place = new_place(kind)
    storage = place.storage()
    name = storage.save(io.BytesIO(PNG_MAGIC), "png")
    if MARKS[mark] is None:
        place.remove("latest.json")
    else:
        place.put("latest.json", MARKS[mark].replace(b"NAME", name.encode()))
    place.put("notes.txt", b"newer, but no picture")
    place.put(f".{'f' * 32}.png.part", PNG_MAGIC)
    before = place.names()
    assert storage.latest().name == name
    assert place.names() == before
    place.remove(name)
    with pytest.raises(FileMissing):
        storage.latest()


@fact("6-latest-ties")
def test_files_keep_the_uploads_order_and_time_without_the_mark(folder):
    clock = Clock()
    storage = folder.storage(clock=clock)
    for number in range(30):
        clock.now += 0.001
        name = storage.save(io.BytesIO(PNG_MAGIC), "png")
        if number % 10 == 9:
            folder.remove("latest.json")
            latest = storage.latest()
            assert latest.name == name
            assert latest.uploaded_at.timestamp() == pytest.approx(clock.now)


def test_the_clock_of_japan_needs_no_time_zone_data():
    from file_server.views import JST

    assert datetime(2025, 9, 12, tzinfo=JST).utcoffset() == timedelta(hours=9)
