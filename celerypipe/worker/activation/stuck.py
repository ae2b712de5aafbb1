"""Notices an ``update`` that goes on long after it should have ended, and that no interrupt ends.

Where the worker was told to end it interrupts what is at work first, once that has had its time.

A prefork child can be ended by itself. A solo worker or a thread takes the whole worker with it, so that is a choice
(``--exit-when-stuck``); whoever supervises the worker starts another one.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from celerypipe.worker import farewell
from celerypipe.worker.activation.alarm import SHUTDOWN
from celerypipe.worker.activation.keeper import Lease

logger = logging.getLogger("celerypipe.worker")

#: Seconds between two looks.
BEAT = 0.5
#: Seconds beyond its timeout, or after it was called back, for which an ``update`` may go on: where a process serves
#: nobody else meanwhile, and on threads, where others go on and a late end is no harm.
GRACE_ALONE, GRACE_AMONG_OTHERS = 2.0, 10.0
#: Seconds that a message has which nobody waits for any more: its ``update`` may be about to end, and nobody is late.
CALL_BACK_PATIENCE = 8.0
#: The deadline for a GIL that is held is so much later: who can still say what happened goes first.
LATER = 1.0


class StuckWatch:
    """A daemon thread of a worker process. ``act`` is called with what is stuck, once for each message.

    ``leases``: those of the activations of this process; ``beat`` is called at every look; ``end``: when what is at
    work has to be through since the worker was told to end, infinite if it was not. A process is waited for, so who is
    late then is stuck, and so is who does not come back.
    """

    def __init__(
        self,
        leases: Callable[[], Sequence[Lease]],
        grace: float,
        act: Callable[[Lease, str], None],
        beat: Callable[[], object],
        end: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._leases = leases
        self._end_of_all = end
        self._end = math.inf
        self._grace = grace
        self._act = act
        self._beat = beat
        self._said: set[tuple[Lease, str]] = set()
        self._thread = threading.Thread(target=self._watch, name="celerypipe-stuck", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            time.sleep(BEAT)
            try:
                self._beat()
                self._look()
            except Exception:  # noqa: BLE001  # whatever went wrong this time, somebody has to look the next time
                text = f"cannot look for stuck nodes this time: {traceback.format_exc()}"
                farewell.say(logger, logging.ERROR, text)

    def _look(self) -> None:
        leases, before = list(self._leases()), self._end
        self._end = self._end_of_all()
        if before == math.inf != self._end:
            self._said.clear()  # what stayed with it until now has to go
        if time.monotonic() >= self._end:
            for lease in leases:
                _hand_back(lease)
        self._said = {(lease, entry) for lease, entry in self._said if lease.current == entry}
        for lease in leases:
            key, late = (lease, lease.current), self._late(lease)
            if late > self._patience and key not in self._said:
                self._said.add(key)
                self._act(lease, as_text(lease, late))

    @property
    def _patience(self) -> float:
        return self._grace if self._end == math.inf else min(self._grace, GRACE_ALONE)

    def _late(self, lease: Lease) -> float:
        """Seconds since it should have ended; below 0 or minus infinity if it may go on."""
        entry, called_back = lease.called_back
        end = lease.until
        if entry and entry == lease.current:
            end = min(end, called_back + CALL_BACK_PATIENCE)
        if lease.current:
            end = min(end, self._end)
        return time.monotonic() - end if end != math.inf else -math.inf


def _hand_back(lease: Lease) -> None:
    if lease.current:  # once more, if it was not heard
        lease.call_back(lease.current)
        lease.alarm.interrupt(SHUTDOWN, lease.at_work)


def as_text(lease: Lease, late: float) -> str:
    """Say what is stuck, and where."""
    frame = sys._current_frames().get(lease.thread)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
    mailbox = lease.mailbox
    what = f"update() of node {mailbox.node}, run {mailbox.run}, is stuck: it should have ended {late:.1f} s ago"
    return f"{what}; it is here:\n{stack}" if stack else what
