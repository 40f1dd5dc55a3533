"""A Hub for the tests: repositories are folders, served as huggingface_hub asks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """``repositories`` are folders by name, ``gated`` names refuse, and ``cut`` (part
    of a path) is a file whose first answer breaks off in the middle, once
    ``may_break`` is set."""

    def __init__(self, repositories, gated=(), cut=None):
        self.repositories, self.gated, self.cut = repositories, gated, cut
        self.may_break = threading.Event()
        self.served = []
        self.ranges = []
        self.revisions = []
        self.sha = SHA


def hub_settings(url, home):
    """What a program needs to download from the hub at ``url`` into ``home``."""
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": home,
        "HF_HUB_OFFLINE": 0,
        "HF_HUB_DISABLE_XET": 1,
    }


@contextlib.contextmanager
def run_hub(hub):
    """Serve ``hub``; gives its URL, to be used as HF_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self.describe("/".join(parts[2:4]), parts[4:])
            elif parts[2:3] == ["resolve"]:
                self.commit = parts[3] if len(parts[3]) == len(SHA) else hub.sha
                self.file("/".join(parts[:2]), "/".join(parts[4:]), body)
            else:
                self.refuse(404, "EntryNotFound")

        def describe(self, name, what):
            if name in hub.gated:
                self.refuse(403, "GatedRepo")
            elif name not in hub.repositories:
                self.refuse(404, "RepoNotFound")
            elif what[:1] == ["tree"]:
                root = Path(hub.repositories[name])
                files = [
                    {
                        "type": "file",
                        "path": str(path.relative_to(root)),
                        "size": path.stat().st_size,
                        "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
                    }
                    for path in sorted(root.rglob("*"))
                    if path.is_file()
                ]
                self.json(files)
            else:
                asked = what[1] if what[:1] == ["revision"] else "main"
                hub.revisions.append(asked)
                sha = asked if len(asked) == len(SHA) else hub.sha
                self.json({"id": name, "sha": sha, "siblings": []})

        def file(self, name, path, body):
            if name in hub.gated:
                self.refuse(403, "GatedRepo")
                return
            data = (Path(hub.repositories[name]) / path).read_bytes()
            start = 0
            if asked := self.headers.get("Range"):
                hub.ranges.append((path, asked))
                start = int(asked.removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if asked else 200)
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", self.commit)
            self.send_header("Accept-Ranges", "bytes")
            if asked:
                shown = f"bytes {start}-{len(data) - 1}/{len(data)}"
                self.send_header("Content-Range", shown)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            if not body:
                return
            hub.served.append(f"{name}/{path}")
            if hub.cut and hub.cut in path:
                hub.cut = None
                self.wfile.write(data[: len(data) // 2])
                hub.may_break.wait(60)
                self.close_connection = True
                return
            self.wfile.write(data[start:])

        def json(self, value):
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def refuse(self, status, code):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
