"""What a run counts of its warped nodes, on its way into Redis: what is new, in batches that each count once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from celerypipe.mailbox.counts import TIMES, bucket, counting
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Broken, Command, accepted, connect, said, tried_again
from celerypipe.redis.keys import Names
from celerypipe.redis.script import together
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.warp import Warp

#: Seconds between two batches.
EVERY = 1.0
#: Seconds that Redis has to take the last one.
PATIENCE = 1.0


class Counting:
    """Looks at what the nodes of a run have counted, and tells what is new since it looked last.

    Used by one thread at a time; a batch goes once more until it was :meth:`answered`.
    """

    def __init__(self, course: Course, names: Names, warps: Mapping[str, Warp]) -> None:
        self._course = course
        self._names = names
        self._warps = warps
        self._told: dict[str, Counter[str]] = {}
        self._number = 0
        self._out: Command | None = None
        self._next = 0.0
        self._complained = False

    def due(self) -> Command | None:
        """Return a batch about once a second, if there is anything in it."""
        now = time.monotonic()
        if now < self._next:
            return None
        self._next = now + EVERY
        return self._batch(last=False)

    def answered(self, answer: Any) -> None:
        """Redis took the batch, or refused it: then it is tried again."""
        if not isinstance(answer, Exception):
            self._out = None
        elif not self._complained:
            self._complained = True
            self._course.say(f"nothing is counted for metrics: {said(answer)}; trying again until it works")

    def finish(self, address: Address) -> None:
        """Tell all that is left to tell; the run is over, and nothing is counted any more."""
        if self._batch(last=True) is None:
            return
        try:
            with connect(address, name="celerypipe-counting", timeout=PATIENCE) as client:
                while (batch := self._batch(last=True)) is not None:
                    accepted(tried_again(client, partial(together, client, batch)))
                    self._out = None
        except Broken as error:
            self._course.say(f"what was counted last is missing in the metrics: {said(error)}")

    def _batch(self, *, last: bool) -> Command | None:
        """Return what is not told yet, as one command: first what was not answered."""
        if self._out is None and (new := self._new(last=last)):
            self._number += 1
            course = self._course
            self._out = counting(self._names, course.run_id, self._number, course.pipeline, new, last=last)
        return self._out

    def _new(self, *, last: bool) -> dict[tuple[str, str], Counter[str]]:
        found: dict[tuple[str, str], Counter[str]] = {}
        for warp in list(self._warps.values()):
            told, now = self._told.get(warp.name, Counter()), _counted(warp, last=last)
            if now != told:
                self._told[warp.name] = now
                found[warp.queue, warp.name] = Counter({what: more for what in now if (more := now[what] - told[what])})
        return found


def _counted(warp: Warp, *, last: bool) -> Counter[str]:
    """What was counted of a node so far; ``last``: and what its run leaves."""
    tally = warp.tally
    found = Counter(dict(tally.outcomes))
    found["retried"] = tally.retried
    if last:
        found.update(warp.left())
    for name, times in zip(TIMES, (tally.waiting, tally.running, tally.transfer), strict=True):
        found[name] = round(times.total * 1e6)
        for seconds, count in times.spread():
            found[f"{name} {bucket(seconds)}"] += count
    return found
