"""The C library's allocator, told to keep large blocks that were freed.

By default it gives a freed megabyte back to the kernel and asks for it again at the next message; the kernel hands out
pages one by one, which costs more than writing to them: 870 page faults and two milliseconds for a frame of 0.9 MB.
"""

from __future__ import annotations

import ctypes
import os
import sys

#: Bytes that are kept at most, and blocks up to which size. The library's own upper bound for the second is 32 MiB.
KEPT = 64 * 1024 * 1024
KEPT_BLOCK = 32 * 1024 * 1024

#: The same for a process that is started.
ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": str(KEPT), "MALLOC_MMAP_THRESHOLD_": str(KEPT_BLOCK)}

#: Whoever set one of these decided already.
_DECIDED = (*ENVIRONMENT, "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_large_blocks() -> bool:
    """Let this process and its forks keep them; False where there is another allocator, or the user has decided."""
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _DECIDED):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not glibc
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT) and mallopt(_M_MMAP_THRESHOLD, KEPT_BLOCK))
