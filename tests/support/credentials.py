"""Content credentials in pictures' files, read without the library that wrote them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.node_client import FOLDER, install
from tests.support.servers import ROOT

MESSAGE = "c2pa-python is missing: pip install -r requirements-c2pa.txt"


def need_c2pa():
    """Without the library the test is skipped, but in CI it fails."""
    if importlib.util.find_spec("c2pa") is None:
        assert not os.environ.get("CI"), MESSAGE
        pytest.skip(MESSAGE)


def make_certificates(folder):
    """The settings of a server that signs, and the path of its authority."""
    need_c2pa()
    subprocess.run(
        [sys.executable, "-m", "flux_api", "c2pa-cert", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    names = {"FLUX_C2PA_CERT": "c2pa-cert.pem", "FLUX_C2PA_KEY": "c2pa-key.pem"}
    return {k: folder / v for k, v in names.items()}, folder / "c2pa-ca.pem"


def read(path, authority, offsets=()):
    """What the C2PA project's own JavaScript reader says of a file, and of the same
    with the byte at each of ``offsets`` changed."""
    install()
    done = subprocess.run(
        ["node", "c2pa.mjs", str(authority), str(path), *map(str, offsets)],
        cwd=FOLDER,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def active(told):
    """The newest manifest of what was read."""
    return told["manifests"][told["active_manifest"]]


def actions(manifest):
    """Each action with the last word of its source, and its ingredients' numbers."""
    [told] = [a for a in manifest["assertions"] if a["label"] == "c2pa.actions.v2"]
    return [
        (
            action["action"],
            action.get("digitalSourceType", "").rpartition("/")[2],
            len(action.get("parameters", {}).get("ingredients", ())),
        )
        for action in told["data"]["actions"]
    ]


def check_data_hash(data):
    """The range (start, end) of a file that its data hash leaves out, which holds the
    manifests and nothing else, after the hash was found to be that of all the rest."""
    store = _store(data)
    told = _find(store, "c2pa.hash.data")
    [skipped] = told["exclusions"]
    start, end = skipped["start"], skipped["start"] + skipped["length"]
    # A PNG's chunk has 12 bytes of its own, a piece in a JPEG 20 for each 64 KB.
    assert store[:1000] in data[start:end]
    assert end - start <= len(store) + 20 * (1 + len(store) // 60_000)
    assert told["alg"] == "sha256"
    found = hashlib.sha256(data[:start] + data[end:]).digest()
    assert found == told["hash"], "another hash"
    return start, end


def _store(data):
    """The manifests as they lie in a PNG, JPEG or WebP file."""
    if data.startswith(b"\x89PNG"):
        return _from_png(data)
    return _from_webp(data) if data.startswith(b"RIFF") else _from_jpeg(data)


def _from_png(data):
    position = 8
    while True:
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"caBX":
            return data[position + 8 : position + 8 + length]
        position += 12 + length


def _from_webp(data):
    position = 12
    while True:
        name, length = struct.unpack_from("<4sI", data, position)
        if name == b"C2PA":
            return data[position + 8 : position + 8 + length]
        position += 8 + length + (length & 1)


def _from_jpeg(data):
    """Its pieces, each behind a header that repeats the box's own."""
    position, pieces = 2, []
    while data[position + 1] != 0xDA:
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if data[position + 1] == 0xEB and body[:2] == b"JP":
            pieces.append(body[8:] if not pieces else body[16:])
        position += 2 + length
    return b"".join(pieces)


def _boxes(data):
    """Type and content of each of the boxes in a row."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + length]
        position += length


def _find(data, label):
    """The content of the last box of that ``label``: the newest manifest is last."""
    found = None
    for kind, body in _boxes(data):
        if kind != b"jumb":
            continue
        (_, description), *inner = _boxes(body)
        name = description[17:].split(b"\0")[0].decode()
        if name == label:
            found = _Cbor(inner[0][1]).value()
        else:
            within = body[8 + len(description) :]
            found = _find(within, label) or found
    return found


class _Cbor:
    """The few kinds of values that a data hash is made of, see RFC 8949."""

    def __init__(self, data):
        self._data, self._position = data, 0

    def value(self):
        """The next one."""
        [first] = self._take(1)
        kind, count = first >> 5, first & 31
        if count > 23:
            count = int.from_bytes(self._take(1 << (count - 24)), "big")
        match kind:
            case 0:
                return count
            case 2:
                return self._take(count)
            case 3:
                return self._take(count).decode()
            case 4:
                return [self.value() for _ in range(count)]
            case 5:
                return {self.value(): self.value() for _ in range(count)}
        raise ValueError(f"a value of kind {kind}")

    def _take(self, count):
        self._position += count
        return self._data[self._position - count : self._position]


def write(folder, name, data):
    """A file in ``folder`` with ``data``."""
    path = Path(folder) / name
    path.write_bytes(data)
    return path
