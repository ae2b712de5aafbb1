"""What runs below a process, and whether it still does."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def birth(pid: int) -> int:
    """When a process began, in ticks since the machine did; 0: it is gone. Pids are given again, in an hour too."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0


def descendants(pid: int) -> set[int]:
    """All processes below this one."""
    found: set[int] = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found |= {int(child), *descendants(int(child))}
    return found


def monitors_of(pid: int) -> list[int]:
    """The processes that tell of a worker's life: one, or none for a moment."""
    with suppress(FileNotFoundError, ProcessLookupError):
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in children if "monitor.py" in command_line(child)]
    return []


def command_line(pid: int) -> str:
    """What ``ps`` shows to everyone."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
