"""What the file server's tests start and speak to: servers, and places to store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest
import requests
from botocore.config import Config
from PIL import Image

from tests.support.pictures import save

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TOKEN = "a+long/token=="
AUTH = {"Authorization": f"Bearer {TOKEN}"}
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
}
S3_ENV = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


GTHREAD = ("-k", "gthread", "--threads", "8")


def fact(*ids):
    """Mark a test with the ids of the facts that it proves."""
    return pytest.mark.parametrize("facts", [" ".join(ids)], ids=["+".join(ids)])


def picture(tag="", size=400, kind="PNG"):
    """A real picture of a plain colour that depends on the tag."""
    colour = tuple(hashlib.sha256(str(tag).encode()).digest()[:3])
    return save(Image.new("RGB", (size, size), colour), kind)


def sealed(number, size=100_000):
    """Bytes that begin as a PNG does and end with their own checksum."""
    body = PNG_MAGIC + hashlib.shake_128(b"%d" % number).digest(size)
    return body + hashlib.sha256(body).digest()


def is_whole(data):
    """Tell whether nothing is missing from bytes that ``sealed`` made."""
    return hashlib.sha256(data[:-32]).digest() == data[-32:]


@dataclass
class Server:
    """A running server: its address, its process and the lines that it wrote."""

    url: str
    process: subprocess.Popen
    lines: list = field(default_factory=list)

    def upload(self, data=None, **options):
        data = picture() if data is None else data
        files = {"file": ("a.png", data, "image/png")}
        return requests.post(f"{self.url}/upload", files=files, timeout=30, **options)

    def stored(self, data=None):
        answer = self.upload(data)
        assert answer.status_code == 200, answer.text
        return answer.json()["url"]

    def get(self, path, **options):
        return requests.get(self.url + path, timeout=30, **options)

    def latest(self, **headers):
        return self.get("/latest", headers=AUTH | headers)

    def latest_path(self):
        answer = self.latest()
        assert answer.status_code == 200, answer.text
        return re.sub("^https?://[^/]+", "", answer.json()["url"])

    def exchange(self, data, half_close=False):
        """Send raw bytes and return all that comes back until the end."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 30) as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    answer += chunk
        return answer

    def log(self):
        """The JSON lines so far, parsed."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def stop(self, number=signal.SIGTERM):
        """Send the signal to the server, to all of its processes for SIGKILL."""
        if self.process.poll() is None:
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)
        return self.process.wait(30)


def clean_env(**variables):
    """This process's environment without any setting of the server, and these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("BEARER_TOKEN", "UPLOAD_TOKEN", "STORAGE_URL", "PUBLIC_URL")
        and not name.startswith(("FILES_", "AWS_", "GUNICORN_"))
    }
    return kept | {"PYTHONPATH": str(ROOT)} | variables


def launch(command, env, **options):
    """Start a server and return it as soon as it listens."""
    process = subprocess.Popen(
        command,
        env=env,
        cwd=options.pop("cwd", ROOT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    server = Server("", process)
    heard = queue.Queue()

    def listen():
        with process.stderr as stream:
            for line in stream:
                server.lines.append(line)
                if found := re.search(r"Listening at: (https?://\S+)", line):
                    heard.put(found[1])
        heard.put(None)

    threading.Thread(target=listen, daemon=True).start()
    server.url = heard.get(timeout=60)
    assert server.url, "".join(server.lines)
    return server


@dataclass
class FolderPlace:
    """A fresh folder as a server's storage."""

    path: Path
    kind = "local"

    @property
    def settings(self):
        return {"STORAGE_URL": self.path.as_uri()}

    def names(self):
        return {p.name for p in self.path.iterdir() if not p.name.startswith(".")}

    def put(self, name, data):
        (self.path / name).write_bytes(data)

    def remove(self, name):
        (self.path / name).unlink()

    def storage(self, **options):
        from file_server.local import LocalStorage

        return LocalStorage(self.path, **options)


@dataclass
class BucketPlace:
    """A fresh prefix of a bucket as a server's storage."""

    endpoint: str
    client: object
    prefix: str
    kind = "s3"

    @property
    def settings(self):
        url = f"s3://pictures/{self.prefix}"
        return S3_ENV | {"STORAGE_URL": url, "AWS_ENDPOINT_URL": self.endpoint}

    def names(self):
        answer = self.client.list_objects_v2(Bucket="pictures", Prefix=self.prefix)
        return {entry["Key"].split("/")[-1] for entry in answer.get("Contents", [])}

    def put(self, name, data):
        # Whatever type the object claims to have must not matter.
        key = f"{self.prefix}/{name}"
        self.client.put_object(
            Bucket="pictures", Key=key, Body=data, ContentType="text/html"
        )

    def remove(self, name):
        self.client.delete_object(Bucket="pictures", Key=f"{self.prefix}/{name}")

    def storage(self, **options):
        from file_server.s3 import S3Storage

        options.pop("min_free", None)
        return S3Storage("pictures", f"{self.prefix}/", client=self.client, **options)


def free_ports(count):
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def s3_client(endpoint):
    """Return a boto3 client for a server of the tests; it tries only once."""
    once = {"mode": "standard", "max_attempts": 1}
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=S3_ENV["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=S3_ENV["AWS_SECRET_ACCESS_KEY"],
        region_name=S3_ENV["AWS_DEFAULT_REGION"],
        config=Config(connect_timeout=2, read_timeout=30, retries=once),
    )
