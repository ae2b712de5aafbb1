"""How much memory there is, and how much of it this process takes, as the system tells."""

from __future__ import annotations

import os
from pathlib import Path

#: Where Linux says how much memory a container may have, and uses: version 2 of control groups, then version 1.
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def memory_here() -> tuple[int, int]:
    """Return the bytes that this machine or container has, and those in use."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), 0
    said = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if rest}
    total = said["MemTotal"]
    used = total - said.get("MemAvailable", 0)
    for most, now in _LIMITS:
        try:
            limit, current = int(Path(most).read_text("ascii")), int(Path(now).read_text("ascii"))
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if limit < total:
            return limit, current
    return total, used


def memory_of_process() -> int:
    """Return the bytes in memory that are this process' own or shared with it; 0 where nobody tells."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
