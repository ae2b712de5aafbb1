"""The warm-up of the nodes that run here: all at the same time, before the sources go."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from celerypipe.errors import DeadlineExceeded
from celerypipe.runner.carrier.loopback import Loopback
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.failures import as_failure
from celerypipe.runner.stations.station import Station

#: Seconds of a warm-up after which it is said.
LONG = 1.0


def warm_up(nodes: Sequence[Station | Loopback], course: Course, *, deadline: float | None, began: float) -> None:
    """Warm them up; the first that fails, or the end of the run, ends the wait. Raises what the first failed with.

    ``deadline``: seconds since the run ``began``, by ``time.monotonic()``.
    """
    failures: list[BaseException] = []

    def warm(prepare: Callable[[], None], name: str) -> None:
        try:
            prepare()
        except BaseException as error:  # noqa: BLE001  # raised again below, in the thread that waits
            failures.append(as_failure(error, name, None))

    since, told = time.monotonic(), False
    threads = {course.spawn("warmup", warm, each.prepare, each.name): each.name for each in nodes}
    while any(thread.is_alive() for thread in threads) and not failures:
        if deadline is not None and time.monotonic() - began > deadline:
            failures.append(DeadlineExceeded(f"the pipeline's deadline of {deadline} s passed during warm-up"))
        if not told and time.monotonic() - since > LONG:
            told = True
            slow = ", ".join(name for thread, name in threads.items() if thread.is_alive())
            course.say(f"warming up: {slow}; timeouts start afterwards")
        if course.over.wait(0.02):
            break
    if failures or course.over.is_set():
        for thread in threads:
            course.forget(thread)
    if failures:
        raise failures[0]
