"""Time to live: what is old goes, the latest stays, uploads meanwhile are safe."""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from file_server.cleaner import Cleaner
from file_server.errors import StorageUnavailable
from tests.file_server.serving import GTHREAD, PNG_MAGIC, fact, sealed

SECONDS = 2
IMMUTABLE = "public, max-age=31536000, immutable"
TTL = {"FILES_TTL_HOURS": str(SECONDS / 3600)}


def wait_until_names(place, wanted):
    pause = threading.Event()
    for _ in range(300):
        if place.names() == wanted:
            return
        pause.wait(0.1)
    assert place.names() == wanted


@fact("W19-cleaner-races", "6-ttl")
def test_the_cleaner_takes_only_what_is_old_and_never_the_latest(
    kind, new_place, serve
):
    place = new_place(kind)
    place.put("notes.txt", b"not ours")
    place.put("0123.png", b"not a name of ours")
    server = serve(**TTL, **place.settings)
    end = time.monotonic() + 2.6

    def keep_uploading(worker):
        numbers = itertools.count()
        # Four each, however busy the machine is.
        while (number := next(numbers)) < 4 or time.monotonic() < end:
            data = sealed(worker * 10_000 + number, 5000)
            start = time.monotonic()
            answer = server.get(server.stored(data))
            # S3 counts whole seconds; a busy machine may take longer than that.
            if time.monotonic() - start < SECONDS - 1.5:
                assert (answer.status_code, answer.content) == (200, data)
                age = re.search(r"max-age=(\d+)", answer.headers["Cache-Control"])
                assert int(age[1]) <= SECONDS
            assert server.latest().status_code == 200

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(keep_uploading, range(3)))
    last = server.stored(PNG_MAGIC)
    # What comes after it expires after it: so there was a round that let it be.
    place.put(f"{'c' * 32}.png", PNG_MAGIC)
    wait_until_names(
        place, {"notes.txt", "0123.png", "latest.json", last.removeprefix("/i/")}
    )
    assert server.latest_path() == last
    assert server.get(last).headers["Cache-Control"].startswith("public, max-age=0")
    # The next upload takes the last one's protection away.
    newer = server.stored(PNG_MAGIC)
    wait_until_names(
        place, {"notes.txt", "0123.png", "latest.json", newer.removeprefix("/i/")}
    )
    told = [line["message"] for line in server.log() if "expired" in line["message"]]
    # Of a round that found nothing there is nothing to say.
    assert told and all(re.fullmatch("removed [1-9].* expired files", x) for x in told)


def test_a_storage_that_fails_is_tried_again_in_the_next_round(caplog):
    class Failing:
        rounds = 0

        def remove_expired(self, limit):
            self.rounds += 1
            if self.rounds == 1:
                raise StorageUnavailable
            return 3

    cleaner = Cleaner(Failing(), 60)
    with caplog.at_level("INFO", "file_server"):
        cleaner.clean()
        cleaner.clean()
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("could not remove expired files: ")
    assert told[1:] == ["removed 3 expired files"]


@pytest.mark.parametrize(
    "how", [("-w", "2"), (*GTHREAD, "--preload")], ids=["two-processes", "preload"]
)
@fact("6-ttl-processes")
def test_the_cleaner_runs_however_the_server_is_started(serve, folder, how):
    server = serve(*how, **TTL, **folder.settings)
    old = server.stored(PNG_MAGIC)
    new = server.stored(PNG_MAGIC)
    os.utime(folder.path / old.removeprefix("/i/"), (0, 0))
    assert server.get("/healthz").status_code == 200
    wait_until_names(folder, {"latest.json", new.removeprefix("/i/")})
    assert server.get(old).status_code == 404


def test_a_bucket_promises_no_picture_for_longer_than_it_stays(new_place, serve):
    """Where browsers read from the bucket itself."""
    place = new_place("s3")
    for hours, said in ((24, "public, immutable"), (0, IMMUTABLE)):
        server = serve(FILES_TTL_HOURS=str(hours), **place.settings)
        before = datetime.now(UTC).replace(microsecond=0)
        name = server.stored().removeprefix("/i/")
        told = place.client.head_object(Bucket="pictures", Key=f"{place.prefix}/{name}")
        assert told["CacheControl"] == said
        if hours:
            end = parsedate_to_datetime(told["ExpiresString"])
            assert timedelta(0) <= end - before - timedelta(hours=24) < timedelta(0, 30)
        else:
            assert "ExpiresString" not in told
        server.stop()


@fact("6-ttl-off")
def test_without_a_time_to_live_the_oldest_stays(serve, folder):
    server = serve(**folder.settings)
    old = server.stored(sealed(1))
    os.utime(folder.path / old.removeprefix("/i/"), (0, 0))
    server.stored(sealed(2))
    answer = server.get(old)
    assert answer.content == sealed(1)
    assert answer.headers["Cache-Control"] == IMMUTABLE
