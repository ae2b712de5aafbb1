"""What a process started, as far as /proc tells: looked at while it lives, ended once it is gone.

A worker without pool processes runs its nodes itself. What they start has no group of its own, since Ctrl-C would not
reach a worker that had made itself one, and when the worker is gone, nothing says any more whose children those were.
So the monitor looks each second, and ends those that it saw, all that come of them, and the orphans in the worker's
group. A process that made itself a session of its own did so to stay, and stays; not where nothing is to stay.
"""

from __future__ import annotations

import os
import time

from celerypipe.heartbeat.procfs import KILL, STOP, LinuxProcess, children, now, others, process_of, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: In the command of those that tidy up behind others, and end by themselves when nobody is left: trackers
#: (multiprocessing's, billiard's, loky's) remove the shared memory of those that were killed, monitors have last words.
TIDIERS = (b"resource_tracker", b"semaphore_tracker", b"heartbeat/monitor.py")
#: Said to workers by who keeps them: what their nodes start ends with them, also if it has a session of its own.
NOTHING_STAYS = "CELERYPIPE_NOTHING_STAYS"


class Descendants:
    """What comes of one process; this one, which watches it, does not count."""

    def __init__(self, boss: int, *, nothing_stays: bool = False) -> None:
        """``nothing_stays``: what has a session of its own is ended too."""
        self._boss = boss
        self._nothing_stays = nothing_stays
        self._seen: dict[int, int] = {}
        self._looked = now()
        self._root = process_of(boss)
        self._reaper = _reaper()
        # Others in the group of the boss, such as the next command of a pipeline.
        self._others = {one.key for one in others() if self._is_orphan(one)}

    def look(self) -> None:
        """Note who is there, while the boss lives."""
        looked, todo = now(), [self._boss]
        seen = {
            pid: began
            for pid, began in self._seen.items()
            if (one := process_of(pid)) is not None and one.began == began
        }
        while todo:
            for pid in children(todo.pop()):
                one = process_of(pid)
                if one is not None and pid != os.getpid() and self._is_ours(one):
                    seen[pid] = one.began
                    todo.append(pid)
        self._seen, self._looked = seen, looked

    def end(self) -> None:
        """Kill all that came of the boss, which is gone or about to be; stopped first, so that none starts another."""
        ended = now()

        def is_one(one: LinuxProcess, found: dict[int, LinuxProcess]) -> bool:
            came = one.key in self._seen.items() or one.parent in (self._boss, *found) or self._is_left(one, ended)
            return came and one.pid != self._boss and self._is_ours(one)

        _end(is_one)

    def _is_ours(self, one: LinuxProcess) -> bool:
        root = self._root
        return root is not None and (self._nothing_stays or one.session == root.session) and one.began >= root.began

    def _is_orphan(self, one: LinuxProcess) -> bool:
        """Is it in the group of the boss, and the one that started it no more?"""
        return self._root is not None and one.group == self._root.group and one.parent == self._reaper

    def _is_left(self, one: LinuxProcess, ended: int) -> bool:
        """Did it come of the boss, though nobody saw that?

        A group that the boss leads has nobody else's orphans in it. In another one, only who was started since the last
        look is taken for one; not where the boss was started by who gets the orphans, such as the shell of a container:
        there it may be another child of that shell.
        """
        root = self._root
        if root is None or not self._is_orphan(one) or one.key in self._others or one.began > ended:
            return False
        return root.group == root.pid or (root.parent != self._reaper and one.began >= self._looked - 1)


def end_group(group: int) -> bool:
    """Kill all that are in a group of processes; False: nobody is."""
    if process_of(os.getpid()) is not None:
        return _end(lambda one, _: one.group == group)
    try:
        os.killpg(group, KILL)
    except OSError:
        return False
    return True


def end_children(since: int) -> bool:
    """Kill what this process started since then, and what came of that; False: nothing. ``since``: as :func:`now`."""
    boss = process_of(os.getpid())

    def is_one(one: LinuxProcess, found: dict[int, LinuxProcess]) -> bool:
        ours = boss is not None and one.session == boss.session and one.began >= since
        return ours and one.parent in (os.getpid(), *found)

    return _end(is_one)


def end_tree(root: int) -> bool:
    """Kill a process, and what came of it as far as that can be seen; False: nobody is there."""
    if process_of(os.getpid()) is not None:
        return _end(lambda one, found: one.pid == root or one.parent in found)
    try:
        os.kill(root, KILL)
    except OSError:
        return False
    return True


def _end(is_one: Callable[[LinuxProcess, dict[int, LinuxProcess]], bool]) -> bool:
    """Kill those processes, which depend on those that were found before; False: there are none."""
    found: dict[int, LinuxProcess] = {}
    while new := [one for one in others() if one.pid not in found and is_one(one, found) and not tidies(one.pid)]:
        for one in new:
            found[one.pid] = one
            one.send(STOP)
    for one in found.values():
        one.send(KILL)
    return bool(found)


def tidies(pid: int) -> bool:
    """Does it tidy up behind others?"""
    command = read(f"/proc/{pid}/cmdline")
    return any(tidier in command for tidier in TIDIERS)


def _reaper() -> int:
    """Return the process that gets the children of those that end around here; 0: nobody knows."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        parent = os.getpid()
        if not os.fork():
            until = time.monotonic() + 5.0
            while os.getppid() == parent and time.monotonic() < until:
                time.sleep(0.001)
            os.write(tell, b"%d" % os.getppid())
        os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    said = os.read(told, 32)
    os.close(told)
    return int(said or 0)
