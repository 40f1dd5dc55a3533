"""Whatever the descriptions allow, and what they do not: no 5xx, no status and no body
that is not described."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import requests

from flux_api.blueprints.description.operations import EXAMPLE_JOB
from tests.support.servers import run_api, run_files
from tests.support.wire import stats

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)


def ask(server, folder, *options):
    """Run schemathesis against ``server``; it writes below ``folder``."""
    program = Path(sys.executable).with_name("schemathesis")
    command = [
        *(str(program), "run", f"{server.url}/openapi.json", "--checks", CHECKS),
        # The same cases each time; one thread, as Python 3.11 parses in one at a time.
        *("--seed", "7", "--workers", "1", "--no-color", "--warnings", "off"),
        *("--generation-database", "none", "--request-timeout", "30"),
        *("--phases", "examples,coverage,fuzzing", *options),
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server(files):
    """The API over the scripted backend, with the job that examples speak of."""
    settings = {"FILE_SERVER": files.url, "FLUX_MAX_QUEUE": 64}
    with run_api(app="tests.support.fake_app:app", **settings) as running:
        running.wait_ready()
        form = {"prompt": "a cat", "size": "64x64", "job_id": EXAMPLE_JOB}
        assert requests.post(f"{running.url}/process", data=form, timeout=10).ok
        yield running


def test_the_api_does_as_it_says(server, tmp_path):
    # The same views, or parameters, under other names.
    again = "^/(openai/|images/|models|loras|v1/jobs|sdapi/v1/img2img)"
    said = ask(server, tmp_path, "-n", "10", "--exclude-path-regex", again)
    assert pictures(server) > 50, said


def pictures(server):
    """How many were made: what came was not only nonsense."""
    return stats(server)["finished"]


def test_the_file_server_does_as_it_says(tmp_path):
    (tmp_path / "stored").mkdir()
    with run_files(tmp_path / "stored", BEARER_TOKEN="a-token") as server:
        ask(server, tmp_path, "-n", "50")
        ask(server, tmp_path, "-n", "50", "-H", "Authorization: Bearer a-token")
