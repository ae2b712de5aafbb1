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


def parent(pid: int) -> int:
    """The process that it is a child of; 0: it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def children_of(pid: int) -> set[int]:
    """The processes that it started and that are its own still; a thread's are those of its process."""
    found: set[int] = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found |= {int(child) for child in (thread / "children").read_text().split()}
    return found


def descendants(pid: int) -> set[int]:
    """All processes below this one."""
    children = children_of(pid)
    return children.union(*map(descendants, children))


def monitors_of(pid: int) -> list[int]:
    """The processes that tell of a worker's life: one, or none for a moment."""
    return [child for child in children_of(pid) if "monitor.py" in command_line(child)]


def command_line(pid: int) -> str:
    """What ``ps`` shows to everyone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
