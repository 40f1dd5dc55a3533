"""Programs of the folder node under Node, with the npm packages that they need."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.programs import need

FOLDER = Path(__file__).resolve().parent / "node"


class NodeClient:
    """A Node process that makes calls with one npm package; see client.mjs."""

    def __init__(self, package):
        install()
        self._process = subprocess.Popen(
            ["node", "client.mjs", package],
            cwd=FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, task):
        """What the call gave, or its error."""
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the Node process ended"
        return json.loads(line)

    def close(self):
        """End the process."""
        self._process.kill()
        self._process.communicate()


def install():
    """``npm ci`` where the packages are missing or older than the lock file."""
    need("node")
    need("npm")
    lock, stamp = FOLDER / "package-lock.json", FOLDER / "node_modules/.installed"
    with open(lock) as alone:
        # Other files' tests run at the same time.
        fcntl.flock(alone, fcntl.LOCK_EX)
        if stamp.exists() and stamp.stat().st_mtime >= lock.stat().st_mtime:
            return
        if not os.access(FOLDER, os.W_OK):
            pytest.skip(f"npm has nowhere to install to: {FOLDER} is read-only")
        command = ["npm", "ci", "--no-progress", "--loglevel=error"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        stamp.touch()
