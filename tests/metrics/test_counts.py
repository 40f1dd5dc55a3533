"""What /metrics says after a load is that load, exactly."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.pictures import make_png
from tests.support.scrape import families, moved, scrape
from tests.support.servers import post_and_leave, run_api, wait_for
from tests.support.wire import release

FAKE = "tests.support.fake_app:app"
KEY = "sk-never-in-a-label"
SECRET = "zebracrossing"
SMALL = {"size": "64x64", "num_inference_steps": 3}
BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]


@pytest.fixture(scope="module")
def server(files):
    """The API with a key and a file server, over the scripted backend."""
    settings = {"FLUX_API_KEYS": f"alice:{KEY}", "FILE_SERVER": files.url}
    with run_api(app=FAKE, **settings) as running:
        yield running.wait_ready()


def post(server, path, prompt="", *, files=None, headers=None, **fields):
    """A request for small pictures."""
    text = {"prompt": f"{SECRET} {prompt}"} if prompt is not None else {}
    headers = {"Authorization": f"Bearer {KEY}"} | (headers or {})
    form = SMALL | text | fields
    return requests.post(
        server.url + path, data=form, files=files, headers=headers, timeout=60
    )


def png():
    return {"image": ("in.png", make_png(), "image/png")}


V1 = "/v1/images"
CALLS = [
    # (how often, path, prompt, options) -> (mode, model, outcome)
    (5, "/process", "", {}, ("generate", "tiny", "done")),
    (4, f"{V1}/generations", "", {"n": 2}, ("generate", "tiny", "done")),
    (2, f"{V1}/generations", "", {"stream": "true"}, ("generate", "tiny", "done")),
    (3, f"{V1}/edits", "", {"files": png}, ("edit", "tiny", "done")),
    (2, f"{V1}/variations", None, {"files": png}, ("variation", "tiny", "done")),
    (3, "/process", "", {"width": 63}, ("none", "none", "refused")),
    (2, f"{V1}/edits", "", {}, ("none", "none", "refused")),
    (1, "/process/raw", "fail=pipeline", {}, ("generate", "tiny", "failed")),
    (2, f"{V1}/generations", "fail=busy", {}, ("generate", "tiny", "failed")),
    (1, "/process", "fail=deadline", {}, ("generate", "tiny", "timeout")),
    (
        *(2, f"{V1}/generations", "", {"headers": {"Prefer": "respond-async"}}),
        ("generate", "tiny", "done"),
    ),
    (
        *(1, "/process", "fail=pipeline", {"headers": {"Prefer": "respond-async"}}),
        ("generate", "tiny", "failed"),
    ),
]


def ask(server, call):
    """One of CALLS."""
    _, path, prompt, options, _ = call
    options = dict(options)
    if make := options.pop("files", None):
        options["files"] = make()
    return post(server, path, prompt, **options)


def label(path, mode, model, outcome):
    return (
        f'flux_requests_total{{mode="{mode}",model="{model}",outcome="{outcome}",'
        f'route="{path}"}}'
    )


def expected():
    """What CALLS move."""
    total, made, stored, started, steps = 0, 0, 0, 0, 0
    counts = {}
    for count, path, _, options, (mode, model, outcome) in CALLS:
        name = label(path, mode, model, outcome)
        counts[name] = counts.get(name, 0) + count
        total += count
        started += count * (mode != "none")
        if outcome == "done":
            pictures = count * options.get("n", 1)
            made += pictures
            # tiny's strength of 0.6 leaves out the first of three.
            left_out = 1 if mode == "variation" else 0
            steps += pictures * (SMALL["num_inference_steps"] - left_out)
            stored += pictures * ("stream" not in options)
    counts |= {
        "flux_request_latency_seconds_count": total,
        "flux_queue_time_seconds_count": started,
        "flux_denoise_step_seconds_count": steps,
        "flux_images_total": made,
        'flux_stage_seconds_count{stage="encode_file"}': made,
        'flux_stage_seconds_count{stage="upload"}': stored,
    }
    return counts


def test_a_load_is_counted_exactly(server):
    before = scrape(server.url, KEY)
    every = [call for call in CALLS for _ in range(call[0])]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda call: ask(server, call), every))
    # Streams and jobs end after their answers have come.
    wait_for(lambda: moved(before, scrape(server.url, KEY)) == expected(), 20, server)


def test_who_leaves_and_who_is_stopped_is_cancelled(server):
    before = scrape(server.url, KEY)

    def running():
        return scrape(server.url, KEY)["flux_num_requests_running"]

    form = b"prompt=hold&size=64x64"
    assert requests.post(f"{server.url}/process", data=form).status_code == 401
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, server, "/process", "hold", job_id="to-be-stopped")
        wait_for(lambda: running() == 1, 10, server)
        auth = {"Authorization": f"Bearer {KEY}"}
        requests.delete(f"{server.url}/jobs/to-be-stopped", headers=auth, timeout=5)
        assert answer.result().status_code == 499
    wait_for(lambda: running() == 0, 10, server)
    changes = moved(before, scrape(server.url, KEY))
    assert changes[label("/process", "generate", "tiny", "cancelled")] == 1
    assert changes[label("/process", "none", "none", "refused")] == 1
    assert changes["flux_request_latency_seconds_count"] == 2


def test_running_and_waiting_are_gauges(fake):
    def now():
        numbers = scrape(fake.url)
        names = ("flux_num_requests_running", "flux_num_requests_waiting")
        return tuple(numbers[name] for name in names)

    before = scrape(fake.url)
    assert now() == (0, 0)
    form = {"prompt": "hold", "size": "64x64"}
    with ThreadPoolExecutor(3) as pool:
        answers = [
            pool.submit(requests.post, f"{fake.url}/process", data=form, timeout=30)
            for _ in range(3)
        ]
        wait_for(lambda: now() == (1, 2), 10, fake)
        release(fake)
        assert [answer.result().status_code for answer in answers] == [200] * 3
    assert now() == (0, 0)
    requests.post(f"{fake.url}/fake/reset", timeout=5)
    post_and_leave(fake.url, "/process", b"prompt=hold", lambda: now() == (1, 0))
    wait_for(lambda: now() == (0, 0), 10, fake)

    def cancelled():
        changes = moved(before, scrape(fake.url))
        return changes.get(label("/process", "generate", "tiny", "cancelled")) == 1

    wait_for(cancelled, 10, fake)


def test_replays_and_kept_answers_are_counted(fake):
    before = scrape(fake.url)
    form = {"prompt": "a cat", "size": "64x64", "num_inference_steps": 1}
    key = {"Idempotency-Key": "once-and-again"}
    for _ in range(3):
        requests.post(f"{fake.url}/process", data=form, headers=key, timeout=10)
    done = label("/process", "generate", "tiny", "done")
    # A request is counted when it is over, a moment after its caller has the answer.
    wait_for(lambda: moved(before, scrape(fake.url)).get(done) == 3, 10, fake)
    changes = moved(before, scrape(fake.url))
    assert changes['flux_cache_misses_total{cache="answers"}'] == 1
    assert changes['flux_cache_hits_total{cache="answers"}'] == 2
    assert changes["flux_images_total"] == 1


def test_fetches_are_a_stage(fake_with_files, files):
    stored = requests.post(
        f"{files.url}/upload", files={"file": make_png()}, timeout=10
    ).json()["url"]
    before = scrape(fake_with_files.url)
    form = {"input_image_url": files.url + stored, "num_inference_steps": 1}
    assert requests.post(f"{fake_with_files.url}/process", data=form, timeout=10).ok
    form["input_image_url"] = f"{files.url}/i/{'0' * 32}.png"
    answer = requests.post(f"{fake_with_files.url}/process", data=form, timeout=10)
    assert answer.status_code == 400
    changes = moved(before, scrape(fake_with_files.url))
    assert changes['flux_stage_seconds_count{stage="fetch"}'] == 2
    assert changes['flux_stage_seconds_count{stage="upload"}'] == 1


def test_buckets_reach_from_a_hundredth_to_ten_minutes(server):
    for family in families(server.url, KEY):
        if family.type == "histogram" and family.name.endswith("_seconds"):
            bounds = {s.labels.get("le") for s in family.samples} - {None, "+Inf"}
            assert sorted(map(float, bounds)) == BUCKETS, family.name


def test_no_label_holds_a_prompt_a_caller_or_an_id(server):
    post(server, "/process", "hidden", job_id="an-id-of-mine", model="no-such-model")
    post(server, f"/openai/deployments/{SECRET}/images/generations")
    values = {
        (name, value)
        for family in families(server.url, KEY)
        for sample in family.samples
        for name, value in sample.labels.items()
    }
    text = json.dumps(sorted(values))
    for private in (SECRET, "an-id-of-mine", "alice", KEY, "127.0.0.1", "no-such"):
        assert private not in text
    assert {name for name, _ in values} == {
        *("route", "mode", "model", "outcome", "stage", "cache", "le"),
    }
    assert not [
        sample.name
        for family in families(server.url, KEY)
        for sample in family.samples
        if sample.name.endswith("_created")
    ]
