"""Real servers for the file server's tests: gunicorn, and SeaweedFS for S3."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import uuid

import pytest

from tests.file_server.serving import (
    BIN,
    GTHREAD,
    S3_ENV,
    TOKEN,
    BucketPlace,
    FolderPlace,
    clean_env,
    free_ports,
    launch,
    s3_client,
)


@pytest.fixture(autouse=True)
def facts():
    """The facts that a test proves, when it is not marked: none."""


@contextlib.contextmanager
def starting():
    """Give a function that starts gunicorn; stop every one of them in the end."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, prefix=(), options=None, **settings):
            env = clean_env(**{"BEARER_TOKEN": TOKEN} | settings)
            command = [
                *prefix,
                str(BIN / "gunicorn"),
                # No configuration file: the one of the API is not what is tested.
                *("-c", "/dev/null", "--no-control-socket", "-b", "127.0.0.1:0"),
                *(arguments or GTHREAD),
                "file_server:create_app()",
            ]
            server = launch(command, env, **(options or {}))
            stack.callback(server.stop, signal.SIGKILL)
            return server

        yield start


@pytest.fixture
def serve():
    """Start gunicorn with settings, for one test."""
    with starting() as start:
        yield start


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory):
    """A real S3 server, SeaweedFS, on this machine only; gives its endpoint."""
    folder = tmp_path_factory.mktemp("seaweed")
    _write_keys(folder / "s3.json")
    names = [
        f"{part}.port{kind}"
        for part in ("master", "volume", "filer", "s3")
        for kind in ("", ".grpc")
    ]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [
        str(BIN / "weed"),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.volumeSizeLimitMB=32",
        "-master.telemetry=false",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with (
        open(folder / "log", "wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process,
    ):
        try:
            endpoint = f"http://127.0.0.1:{ports['s3.port']}"
            _make_bucket(endpoint, process)
            yield endpoint
        finally:
            # Its own orderly stop takes most of a minute.
            process.kill()


def _write_keys(path):
    keys = {
        "accessKey": S3_ENV["AWS_ACCESS_KEY_ID"],
        "secretKey": S3_ENV["AWS_SECRET_ACCESS_KEY"],
    }
    identity = {"name": "tests", "credentials": [keys], "actions": ["Admin"]}
    path.write_text(json.dumps({"identities": [identity]}))


def _make_bucket(endpoint, process):
    client = s3_client(endpoint)
    pause = threading.Event()
    for _ in range(300):
        assert process.poll() is None, "the S3 server stopped at once"
        try:
            client.create_bucket(Bucket="pictures")
            client.put_object(Bucket="pictures", Key="warm", Body=b"up")
            return
        except Exception:
            pause.wait(0.1)
    raise AssertionError("the S3 server did not come up within 30 s")


@pytest.fixture(scope="session")
def new_place(request, tmp_path_factory):
    """Make fresh places of one kind, 'local' or 's3'."""

    def make(kind):
        if kind == "local":
            return FolderPlace(tmp_path_factory.mktemp("images"))
        endpoint = request.getfixturevalue("seaweed")
        return BucketPlace(endpoint, s3_client(endpoint), uuid.uuid4().hex)

    return make


@pytest.fixture(scope="session", params=["local", "s3"])
def kind(request):
    """Each kind of storage in turn: what uses it proves the same of both."""
    return request.param


@pytest.fixture(scope="session")
def shared(kind, new_place):
    """One running server for each kind of storage, with its place."""
    place = new_place(kind)
    with starting() as start:
        yield start(FILES_MAX_UPLOAD_MB="1", **place.settings), place


@pytest.fixture
def server(shared):
    """The running server over one kind of storage."""
    return shared[0]


@pytest.fixture
def place(shared):
    """Where the running server stores."""
    return shared[1]


@pytest.fixture
def folder(tmp_path):
    """A fresh folder as a place."""
    (tmp_path / "images").mkdir()
    return FolderPlace(tmp_path / "images")
