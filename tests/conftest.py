"""What many tests share: running servers, and pictures to send."""

from __future__ import annotations

import re

import pytest
import requests

from tests.support import behind
from tests.support.pictures import make_png
from tests.support.servers import run_api, run_files, wait_for
from tests.support.wire import begin, stats


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A file server."""
    with run_files(tmp_path_factory.mktemp("images")) as server:
        yield server


@pytest.fixture(scope="session")
def api():
    """The API without a file server: answers carry Base64."""
    with run_api() as server:
        yield server.wait_ready()


@pytest.fixture(scope="session")
def fake_api():
    """The API over a backend without torch that prompts command; see fake_app.py."""
    with run_api(app="tests.support.fake_app:app") as server:
        yield server.wait_ready()


@pytest.fixture(scope="session")
def fake_with_files(files):
    """The fake server that stores its pictures on ``files``."""
    with run_api(app="tests.support.fake_app:app", FILE_SERVER=files.url) as server:
        yield server.wait_ready()


@pytest.fixture
def fake(fake_api):
    """``fake_api`` with nothing remembered."""
    requests.post(f"{fake_api.url}/fake/reset", timeout=5)
    return fake_api


@pytest.fixture(scope="session")
def fake_without_results():
    """The fake server that keeps no finished pictures."""
    with run_api(app="tests.support.fake_app:app", FLUX_RESULTS_MB=0) as server:
        yield server.wait_ready()


@pytest.fixture(scope="session")
def fake_with_one_place():
    """The fake server in whose queue one request may wait."""
    with run_api(app="tests.support.fake_app:app", FLUX_MAX_QUEUE=1) as server:
        yield server.wait_ready()


@pytest.fixture
def one_place(fake_with_one_place):
    """``fake_with_one_place`` with nothing remembered."""
    requests.post(f"{fake_with_one_place.url}/fake/reset", timeout=5)
    return fake_with_one_place


@pytest.fixture
def full_queue(one_place):
    """The same with one request that runs, and one that waits."""
    held = []
    for expected in ({"running": 1}, {"queued": 1}):
        held.append(begin(one_place, {"prompt": "a duck hold"}))
        wait_for(lambda e=expected: e.items() <= stats(one_place).items(), 10)
    yield one_place
    for connection in held:
        connection.close()
    idle = {"running": 0, "queued": 0}
    wait_for(lambda: idle.items() <= stats(one_place).items(), 10)


@pytest.fixture(scope="session")
def fake_multi():
    """The fake server with a model that takes 16 input pictures."""
    with run_api(app="tests.support.fake_app:app", FAKE_MAX_IMAGES=16) as server:
        yield server.wait_ready()


@pytest.fixture(scope="module")
def one_thread():
    """Torch in this process: with two threads on busy cores the same call takes many
    times longer."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def load(tmp_path):
    """The file that says how a fake server's loading goes; see fake_app.py."""
    path = tmp_path / "load"
    path.write_text("")
    return path


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    from tests.support.browser import run_browser

    with run_browser() as running:
        yield running


@pytest.fixture
def png():
    """PNG bytes, 96x64."""
    return make_png()


@pytest.fixture(scope="session")
def set_settings(tmp_path_factory):
    """The settings of a server that offers every set over tiny random checkpoints,
    keeps two of them in memory, and knows LoRAs."""
    from tests.support.tiny_sets import BASES, write_loras, write_sets

    folder = tmp_path_factory.mktemp("sets")
    return {
        "MODEL_INFO": write_sets(folder),
        "FLUX_MODELS": ",".join(["tiny", *BASES]),
        "FLUX_MAX_LOADED": 2,
        "FLUX_LORA_DIR": write_loras(folder / "loras"),
    }


@pytest.fixture(scope="session")
def families(set_settings):
    """The server of ``set_settings``; ``lora_folder`` is where its LoRAs lie."""
    with run_api(**set_settings) as server:
        server.lora_folder = set_settings["FLUX_LORA_DIR"]
        yield server.wait_ready()


@pytest.fixture(scope="session")
def sharing(set_settings):
    """The same, where pictures share forwards."""
    with run_api(FLUX_BATCH_TOKENS=100_000, **set_settings) as server:
        yield server.wait_ready()


def pytest_collection_modifyitems(items):
    """Behind nginx some tests are to fail, and no others; see behind.py."""
    if not behind.COUNT:
        return
    known = behind.BY_NGINX | (behind.OF_TWO if behind.COUNT > 1 else {})
    for item in items:
        for pattern, reason in known.items():
            if re.search(pattern, item.nodeid):
                # Those of one instance would wait for minutes until they failed.
                mark = pytest.mark.xfail(
                    reason=reason, strict=True, run=pattern in behind.BY_NGINX
                )
                item.add_marker(mark)
