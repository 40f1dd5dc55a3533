"""What strangers send, through nginx: a part of ``make hostile-nginx``, and what nginx
itself does with what never reaches an instance."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import requests

from tests.http.test_hostile import RAW, ROUTES
from tests.support import behind
from tests.support.programs import need
from tests.support.raw_http import Received, chunked, exchange, read_all, send
from tests.support.raw_http import post as raw_post
from tests.support.servers import ROOT, run_api
from tests.support.wire import stats

FORM = "application/x-www-form-urlencoded"
FILES = ("http/test_hostile.py", "http/test_auth.py", "http/test_cross_site.py")
FILES = [f"tests/{name}" for name in (*FILES, "net/test_fetching.py")]
# Without those that wait for seconds, and most that start servers of their own.
LONG = ("half_sent", "drip", "slow", "hops", "bounded", "cut_off", "waiting")
LONG += ("operator_allows", "every_name", "open_port", "a_fetch", "own_file", "token")
CI_PART = " and ".join(f"not {word}" for word in LONG)


@pytest.mark.skipif(
    not os.environ.get("CI"), reason="in CI only; see make hostile-nginx"
)
def test_hostile_requests_are_answered_the_same_behind_nginx():
    need("nginx")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-k", CI_PART, *FILES],
        cwd=ROOT,
        env=os.environ | {"BEHIND_NGINX": "2"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr


@pytest.fixture(scope="module")
def fronted():
    """Two instances of the scripted backend behind nginx."""
    need("nginx")
    settings = {"FLUX_MAX_UPLOAD_MB": 1, "FLUX_BODY_TIMEOUT": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(behind, "COUNT", 2)
        with run_api(app="tests.support.fake_app:app", **settings) as server:
            yield server.wait_ready()


def arrived(server):
    """How many requests the instances have seen."""
    return len(stats(server)["arrived"])


def assert_works(server):
    """A picture comes."""
    answer = requests.post(f"{server.url}/process", data={"prompt": "x"}, timeout=30)
    assert answer.ok, answer.text


WHOLE = b"prompt=a&steps=1"
CHUNKS = {"Content_Length": None, "Transfer_Encoding": "chunked"}
CUT = {
    "length": raw_post("/process", WHOLE, Content_Type=FORM, Content_Length=300),
    "no-chunk": raw_post("/process", b"", Content_Type=FORM, **CHUNKS),
    "in-a-chunk": raw_post("/process", chunked(WHOLE)[:9], Content_Type=FORM, **CHUNKS),
    "between-chunks": raw_post(
        "/process", chunked(WHOLE, end=b""), Content_Type=FORM, **CHUNKS
    ),
    "bad-chunk": raw_post("/process", b"zz\r\n" + WHOLE, Content_Type=FORM, **CHUNKS),
}


@pytest.mark.parametrize("case", CUT)
def test_a_body_that_is_cut_off_reaches_no_instance(fronted, case):
    """nginx has all of a body before an instance sees any."""
    before = arrived(fronted)
    answer = exchange(fronted, CUT[case])
    assert answer.status in (None, 400)
    assert arrived(fronted) == before
    assert_works(fronted)


def test_a_body_that_stops_is_shut_off_and_reaches_no_instance(fronted):
    before = arrived(fronted)
    data = raw_post("/process", WHOLE, Content_Type=FORM, Content_Length=1000)
    waiting = [send(fronted, data) for _ in range(20)]
    try:
        assert_works(fronted)
        for connection in waiting:
            # It ends by itself: until then this waits, 20 s at most.
            assert Received(read_all(connection)).status in (None, 408)
    finally:
        for connection in waiting:
            connection.close()
    assert arrived(fronted) == before + 1


@pytest.mark.parametrize("case", [*RAW, *ROUTES])
def test_odd_requests_are_answered_in_json_whoever_refuses_them(fronted, case):
    if case in RAW:
        data = RAW[case][0]
    else:
        method, target, _ = ROUTES[case]
        head = f"{method} {target} HTTP/1.1\r\nHost: evil.localhost\r\n"
        data = f"{head}Connection: close\r\n\r\n".encode("latin-1")
    answer = exchange(fronted, data)
    assert answer.status is None or answer.status in (200, *range(400, 432))
    if answer.status not in (None, 200) and not data.startswith(b"HEAD"):
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert json.loads(answer.body)["error"]
    assert b"hidden" not in answer.data
    assert_works(fronted)
