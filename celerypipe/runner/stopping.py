"""What a run does when its process is told to end: drain, or stop; either way it reports."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from celerypipe.errors import RunCancelled
from celerypipe.process import forks
from celerypipe.process.terminals import Terminals
from celerypipe.runner.run import Run

#: Seconds a run may take to drain that was asked to end by a supervisor, or whose terminal was closed.
GRACE = 8.0
#: What each signal asks for: to drain for so many seconds, without end, or not at all.
ASKS = {signal.SIGINT: None, signal.SIGTERM: GRACE, signal.SIGHUP: GRACE, signal.SIGQUIT: 0.0}


class Stopping:
    """SIGINT, SIGTERM, SIGHUP and SIGQUIT for the length of a run in the main thread.

    The first drains (SIGINT as long as that takes), SIGQUIT and a second one stop at once. A signal that this process
    ignores, because ``nohup`` or a shell in the background had it so, stays ignored.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._before: dict[int, Any] = {}
        self._terminals = Terminals()
        self._asked = False

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in ASKS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._told)
            forks.keep(self)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def leave_to_parent(self) -> None:
        """Called in a fork, where nobody would do what a handler says: ``terminate()`` ends the child of a node."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._told:
                signal.signal(number, before)

    def _told(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._terminals.let_go()  # nodes may print while the run drains
        name, grace = signal.Signals(number).name, ASKS[signal.Signals(number)]
        # A handler must not wait for a lock that the interrupted code holds: a thread does.
        if self._asked or grace == 0:
            stopped = RunCancelled(f"stopped by {'a second ' if self._asked else ''}{name}", signal=name)
            threading.Thread(target=self._run.course.fail, args=(stopped,), daemon=True).start()
            return
        self._asked = True
        threading.Thread(target=self._run.stop_sources, args=(name,), daemon=True).start()
        if grace is not None:
            too_long = RunCancelled(f"stopped by {name}; {grace:.0f} s were not enough to drain")
            timer = threading.Timer(grace, self._run.course.fail, args=(too_long,))
            timer.daemon = True
            timer.start()
