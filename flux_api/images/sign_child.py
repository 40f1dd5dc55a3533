"""Run as a program by ``signing.py``: a picture's file in, the same with signed content
credentials out.

It is a process of its own, with bounds of memory and time, since the library reads what
strangers wrote: the credentials of input pictures, taken from their files elsewhere
(``decode_child.py``), where there is no key. It is one file because it runs without the
package around it.

In, over its standard input: three little-endian numbers, ``DONE`` and two lengths, then
a JSON object and bytes of these lengths. The first object is the key pair; each other
says what to sign and how, before the file. Out, each time: ``DONE`` or ``REFUSED``, a
length and 0, then the signed file or the library's own words.
"""

from __future__ import annotations

import base64
import json
import resource
import signal
import struct
import sys
from io import BytesIO
from typing import Any, BinaryIO

REFUSED, DONE = 0, 1
HEADER = struct.Struct("<BLL")

MEMORY_BYTES = 1536 << 20
SETTINGS = {
    # A thumbnail would be far larger than all the rest.
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}


class Signer:
    """Signs with the key pair of ``told``, with a time stamp or without."""

    def __init__(self, told: dict[str, Any]) -> None:
        import c2pa

        self._library = c2pa
        self._context = c2pa.Context.from_dict(SETTINGS)
        url = told["timestamp_url"]
        pair = told["algorithm"].encode(), told["chain"].encode(), told["key"].encode()
        self._signers = {
            stamped: c2pa.Signer.from_info(
                # No authority is None: an empty text would be asked.
                c2pa.C2paSignerInfo(*pair, url.encode() if url and stamped else None)
            )
            for stamped in (False, True)
        }

    def sign(self, told: dict[str, Any], picture: bytes) -> bytes:
        """The file, signed as ``told``."""
        builder = self._library.Builder.from_json(told["manifest"], self._context)
        for archive in told["archives"]:
            stream = BytesIO(base64.b64decode(archive))
            builder.add_ingredient_from_archive(stream)
        signed = BytesIO()
        signer = self._signers[told["stamped"]]
        builder.sign(signer, told["media_type"], BytesIO(picture), signed)
        return signed.getvalue()


def lock_down() -> None:
    """Bounds on memory, and no picture of it on the disk: the key is in it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def receive(source: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next object and its bytes; None at the end."""
    head = source.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    _, length, size = HEADER.unpack(head)
    return json.loads(source.read(length)), source.read(size)


def main(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer one picture after the other until the input ends."""
    lock_down()
    signer: Signer | None = None
    while (received := receive(source)) is not None:
        told, picture = received
        kind, answer = DONE, b""
        try:
            if signer is None:
                signer = Signer(told)
            else:
                answer = signer.sign(told, picture)
        except Exception as error:  # the library's own, and MemoryError
            kind, answer = REFUSED, str(error).encode()[:300]
        sink.write(HEADER.pack(kind, len(answer), 0) + answer)
        sink.flush()


if __name__ == "__main__":
    # -I takes away the user's own packages, which may be where the library is.
    sys.path += sys.argv[1:]
    main(sys.stdin.buffer, sys.stdout.buffer)
