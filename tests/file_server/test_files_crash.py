"""Killed at the worst moments: no half file, no lost file, the latest is right."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from file_server.errors import StorageFull, StorageUnavailable
from tests.file_server.serving import AUTH, PNG_MAGIC, fact, is_whole, sealed


def until(condition, seconds=30):
    """Wait for a condition that another process brings about."""
    pause = threading.Event()
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        pause.wait(0.02)


class Uploads:
    """200 uploads from four threads; remembers what was acknowledged and when."""

    def __init__(self, server):
        self.server = server
        self.left = iter(range(200))
        self.lock = threading.Lock()
        self.done = {}
        self.reached = threading.Event()

    def run(self):
        with suppress(requests.RequestException):
            while (number := self._next()) is not None:
                start = time.monotonic()
                path = self.server.stored(sealed(number))
                with self.lock:
                    self.done[path] = (start, time.monotonic(), number)
                    if len(self.done) == 60:
                        self.reached.set()

    def _next(self):
        with self.lock:
            return next(self.left, None)


def read_latest_until_gone(server, torn):
    with suppress(requests.RequestException):
        while True:
            answer = server.get("/latest/raw", headers=AUTH)
            if answer.status_code != 200 or not is_whole(answer.content):
                torn.append(answer.status_code)


@fact("6-kill9-uploads", "W17-kill9")
def test_kill_9_in_the_middle_of_200_uploads_loses_nothing(kind, new_place, serve):
    place = new_place(kind)
    server = serve(**place.settings)
    old = {server.stored(sealed(number)): number for number in range(1000, 1005)}
    uploads, torn = Uploads(server), []
    threads = [threading.Thread(target=uploads.run) for _ in range(4)]
    threads.append(threading.Thread(target=read_latest_until_gone, args=(server, torn)))
    for thread in threads:
        thread.start()
    assert uploads.reached.wait(60)
    server.stop(signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert not torn
    assert 60 <= len(uploads.done) < 200

    server = serve(**place.settings)
    latest = server.latest_path()
    # Nothing that was acknowledged began after the latest one was acknowledged.
    if latest in uploads.done:
        end = uploads.done[latest][1]
        assert all(start < end for start, _, _ in uploads.done.values())
    assert latest not in old
    wanted = {path: number for path, (_, _, number) in uploads.done.items()} | old
    for path, number in wanted.items():
        assert server.get(path).content == sealed(number)
    for name in place.names() - {"latest.json"}:
        assert is_whole(server.get(f"/i/{name}").content)
    if kind == "local":
        assert not list(place.path.glob(".*.part"))
    path = server.stored(sealed(9999))
    assert server.latest_path() == path


@fact("W17-kill9-before-rename")
def test_kill_9_between_write_and_rename_leaves_no_file(serve, folder):
    server = serve(**folder.settings)
    kept = server.stored(sealed(1))
    before = folder.names()
    data = sealed(2)

    def parts():
        return list(folder.path.glob(".*.png.part"))

    with open(folder.path / ".lock", "rb") as lock:
        # Whoever holds the folder's lock keeps finished files from their names.
        fcntl.flock(lock, fcntl.LOCK_EX)
        sender = threading.Thread(target=_send_in_vain, args=(server, data))
        sender.start()
        until(lambda: [p.stat().st_size for p in parts()] == [len(data)])
        server.stop(signal.SIGKILL)
        sender.join()
    assert folder.names() == before
    [part] = parts()
    assert part.read_bytes() == data
    server = serve(**folder.settings)
    assert server.get("/healthz").status_code == 200
    assert not parts()
    assert folder.names() == before
    assert server.latest_path() == kept
    assert server.get(f"/i/{part.name[1:-5]}").status_code == 404


def _send_in_vain(server, data):
    with suppress(requests.RequestException):
        server.upload(data)


@fact("W17-kill9-other-worker")
def test_a_start_leaves_alone_what_another_process_is_writing(folder):
    stale = folder.path / f".{'1' * 32}.png.part"
    live = folder.path / f".{'2' * 32}.png.part"
    stale.write_bytes(b"half")
    with open(live, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        folder.storage().prepare()
        assert not stale.exists()
        assert live.exists()
    folder.storage().prepare()
    assert not live.exists()


@fact("W17-kill9-worker")
def test_a_killed_worker_is_replaced_and_nothing_is_forgotten(serve, folder):
    server = serve(**folder.settings)
    path = server.stored(sealed(1))
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children")
    [worker] = children.read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    until(lambda: children.read_text().split() not in ([], [worker]))
    assert server.latest_path() == path
    newer = server.stored(sealed(2))
    assert server.latest_path() == newer
    assert server.get(path).content == sealed(1)


@pytest.mark.parametrize("recipe", [b"", b"{}"], ids=["alone", "with-a-recipe"])
def test_a_picture_that_cannot_become_the_latest_leaves_nothing(folder, recipe):
    (folder.path / "latest.json").mkdir()
    with pytest.raises(StorageUnavailable) as refused:
        folder.storage().save(io.BytesIO(PNG_MAGIC), "png", recipe)
    # The log is told what was wrong, and not of the tidying after it.
    assert refused.value.__cause__.errno == errno.EISDIR
    assert {p.name for p in folder.path.iterdir()} == {".lock", "latest.json"}


class Slow(io.BytesIO):
    """An upload that comes to its end only when it is told to."""

    def __init__(self):
        super().__init__(PNG_MAGIC * 1000)
        self.begun, self.may_end = threading.Event(), threading.Event()

    def read(self, size=-1):
        self.begun.set()
        assert self.may_end.wait(30)
        return super().read(size)


@fact("W17-kill9-other-worker")
def test_a_start_in_the_middle_of_an_upload_does_not_harm_it(folder):
    upload = Slow()
    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(folder.storage().save, upload, "png")
        assert upload.begun.wait(30)
        folder.storage().prepare()
        upload.may_end.set()
        name = saving.result(30)
    assert folder.storage().latest().name == name


def test_term_lets_a_running_upload_finish(serve, folder):
    server = serve(**folder.settings)
    answers = []
    with open(folder.path / ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sender = threading.Thread(
            target=lambda: answers.append(server.upload(PNG_MAGIC))
        )
        sender.start()
        until(lambda: list(folder.path.glob(".*.png.part")))
        server.process.send_signal(signal.SIGTERM)
        until(lambda: any("Handling signal: term" in line for line in server.lines))
    sender.join()
    assert answers[0].status_code == 200
    assert server.process.wait(30) == 0
    assert answers[0].json()["url"].removeprefix("/i/") in folder.names()


class Failing(io.BytesIO):
    """An upload whose reading or storing fails half-way with an error number."""

    def __init__(self, number):
        super().__init__(PNG_MAGIC * 1000)
        self.number = number

    def read(self, size=-1):
        if self.tell():
            raise OSError(self.number, os.strerror(self.number))
        return super().read(1000)


@pytest.mark.parametrize(
    ("number", "kind_of_error"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EFBIG, StorageFull),
        (errno.EROFS, StorageUnavailable),
        (errno.EIO, StorageUnavailable),
    ],
    ids=errno.errorcode.get,
)
@fact("6-write-errors")
def test_a_write_that_fails_half_way_leaves_nothing(folder, number, kind_of_error):
    storage = folder.storage()
    kept = storage.save(io.BytesIO(PNG_MAGIC), "png")
    before = {p.name for p in folder.path.iterdir()}
    with pytest.raises(kind_of_error):
        storage.save(Failing(number), "png")
    assert {p.name for p in folder.path.iterdir()} == before
    assert storage.latest().name == kept
