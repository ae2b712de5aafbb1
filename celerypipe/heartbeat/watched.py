"""A process that a heartbeat tells of: whether it runs, by a descriptor that holds it where the system has such."""

from __future__ import annotations

import os
import time

from celerypipe.heartbeat.descendants import end_group
from celerypipe.heartbeat.procfs import DUMP, DUMPING, KILL, pidfd, process_of, send

#: States in which a process does nothing: stopped, traced, a zombie, gone.
STILL = b"TtZX"


class Watched:
    """A process that is watched. ``boss``: who started it; 0: it is the boss itself."""

    def __init__(self, pid: int, boss: int = 0) -> None:
        self.pid = pid
        self.boss = boss
        #: May it be killed, and its group? Not the boss, whose group may have others in it; and to the numbers 0 and 1
        #: kill and killpg give another meaning.
        self.ours = boss > 0 and pid > 1
        self.fd = -1  # where there are no pidfds it is asked for each second
        self.gone = False
        try:
            self.fd = pidfd(pid)
        except ProcessLookupError:
            self.gone = True
        if self.gone or not self._is_there():  # too late: nobody knows whose number that is now
            self.gone, self.ours = True, False

    def _is_there(self) -> bool:
        if not self.boss:
            return os.getppid() == self.pid
        told = process_of(self.pid)
        return told is None or told.parent == self.boss

    def look(self) -> bool:
        """See how it is; return whether it runs."""
        if self.gone:
            return False
        told = process_of(self.pid)
        state = told.state if told is not None else b"R"
        try:
            if self.fd < 0:
                os.kill(self.pid, 0)
                if not self._is_there():  # the number is another's by now
                    self.gone, self.ours = True, False
                self.gone = self.gone or state in b"ZX"
        except ProcessLookupError:
            self.gone = True
        except PermissionError:  # it runs, as somebody else
            pass
        return not self.gone and state not in STILL

    def end(self) -> None:
        """Kill it, and the group that it leads, if it leads one; not what the boss did not start."""
        if not self.ours or end_group(self.pid):
            return
        try:
            if self.fd >= 0 or not self.gone:
                send(self.pid, self.fd, KILL)
        except OSError:
            pass

    def kill(self) -> None:
        """Kill it, once it has said where its threads are."""
        try:
            send(self.pid, self.fd, DUMP)
            time.sleep(DUMPING)
            send(self.pid, self.fd, KILL)
        except OSError:
            pass

    def close(self) -> None:
        """It is gone: kill what is left of its group."""
        self.gone = True
        self.end()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
