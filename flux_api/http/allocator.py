"""Memory of large uploads goes back to the system as soon as it is freed."""

from __future__ import annotations

import ctypes

_LARGE = 8 << 20
# Of <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def return_large_blocks() -> None:
    """Have glibc map blocks of 8 MiB and more one by one, and keep at most as much free
    memory at the end of an arena. Left alone it raises both bounds to what was freed
    last, so that a few large uploads leave tens of MiB in each thread's arena for good
    (``malloc_trim`` does not reach the end of an arena). Other C libraries have neither
    this function nor the habit."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _LARGE)
