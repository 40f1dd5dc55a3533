"""Memory of large uploads, as glibc itself tells of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.servers import QUIET, ROOT

CODE = """
import ctypes, json, sys

class Told(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks"
    names = [*names.split(), "keepcost"]
    _fields_ = [(name, ctypes.c_size_t) for name in names]

def told():
    libc.mallinfo2.restype = Told
    return libc.mallinfo2()

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
if sys.argv[1] == "set":
    from flux_api.http.allocator import return_large_blocks
    return_large_blocks()
# One large block that is freed makes glibc keep such blocks from now on.
libc.free(libc.malloc(30 << 20))
before = told().hblks
blocks = [libc.malloc(size << 20) for size in (9, 9)]
mapped = told().hblks - before
small = [libc.malloc(1 << 20) for _ in range(24)]
mapped_too = told().hblks - before - mapped
# From the end, where each becomes part of what is free there.
for block in small[:-7:-1]:
    libc.free(block)
ready = told().keepcost
for block in (*small[-7::-1], *blocks):
    libc.free(block)
print(json.dumps([mapped, mapped_too, ready, told().keepcost]))
"""


def measure(how):
    """How many of two blocks of 9 MiB are mapped one by one, and how many of 24 of 1
    MiB; how many bytes are kept when six of these, and when all have been freed."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, how],
        cwd=ROOT,
        env=QUIET,
        capture_output=True,
        text=True,
        check=False,
    )
    if "mallinfo2" in done.stderr:
        pytest.skip("this C library does not tell of its memory")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_large_blocks_go_back_and_little_is_kept():
    *mapped, ready, kept = measure("set")
    # What is small is kept for the next one, up to a bound.
    assert mapped == [2, 0] and ready >= 6 << 20 and kept <= 8 << 20
    # Not by itself.
    *mapped, ready, kept = measure("left alone")
    assert mapped == [0, 0] and kept > 8 << 20
