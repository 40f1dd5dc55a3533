"""The file server's numbers: what came, what was refused, what is there."""

from __future__ import annotations

import re
import shutil
from types import SimpleNamespace

import pytest
import requests

from file_server import Settings, create_app, metrics
from file_server.storage import Usage
from tests.file_server.serving import AUTH, PNG_MAGIC, TOKEN, sealed
from tests.support.scrape import moved, scrape
from tests.support.servers import wait_for


def numbers(server):
    return scrape(server.url, TOKEN)


def test_uploads_refusals_and_what_is_stored(server, place):
    before = numbers(server)
    data = [sealed(number, 1000 * number) for number in range(1, 4)]
    for one in data:
        server.stored(one)
    for refused in (b"no image", b"", PNG_MAGIC + bytes(2 << 20)):
        server.upload(refused)
    wanted = {
        "flux_files_uploads_total": 3,
        'flux_files_refusals_total{status="400"}': 1,
        'flux_files_refusals_total{status="413"}': 1,
        'flux_files_refusals_total{status="415"}': 1,
        "flux_files_stored": 3,
        "flux_files_stored_bytes": sum(map(len, data)),
    }

    def counted():
        after = moved(before, numbers(server))
        after.pop("flux_files_free_bytes", None)
        return after == wanted

    # What is stored is not counted at each scrape.
    wait_for(counted, 30)
    assert numbers(server)["flux_files_stored"] == len(
        [name for name in place.names() if name.endswith(".png")]
    )


def test_only_a_disk_has_an_end(server, place):
    free = numbers(server).get("flux_files_free_bytes")
    if place.kind == "s3":
        assert free is None
    else:
        disk = shutil.disk_usage(place.path)
        assert 0.5 * disk.free < free < disk.total


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"Authorization": "Bearer x"}, 403), (AUTH, 200)],
)
def test_they_need_the_bearer_token(server, headers, status):
    answer = requests.get(f"{server.url}/metrics", headers=headers, timeout=10)
    assert answer.status_code == status


def test_what_takes_long_to_count_is_counted_seldom(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(metrics, "time", clock)

    class Large:
        """A storage of so many files that counting them takes two seconds."""

        counts = 0

        def check(self):
            pass

        def usage(self):
            clock.now += 2
            self.counts += 1
            return Usage(self.counts, 0, None)

    app = create_app(Settings(bearer_token=TOKEN), storage=Large())
    seen = []
    for seconds in (0, 190, 20, 190, 20):
        clock.now += seconds
        text = app.test_client().get("/metrics", headers=AUTH).text
        seen.append(re.search(r"^flux_files_stored (\S+)$", text, re.M)[1])
    # A hundredth of the time at most: once in 200 s.
    assert seen == ["1.0", "1.0", "2.0", "2.0", "3.0"]


def test_a_storage_that_is_away_is_a_number_too(serve, folder):
    server = serve(**folder.settings)
    server.stored()
    assert numbers(server)["flux_files_ready"] == 1
    shutil.rmtree(folder.path)
    away = numbers(server)
    assert away["flux_files_ready"] == 0
    assert away["flux_files_uploads_total"] == 1
    assert "flux_files_stored" not in away
