"""A function over many values: submitted as they are needed, given back as they come or in their order."""

from __future__ import annotations

import itertools
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from celerypipe.functions.call import Call
from celerypipe.functions.function import WINDOW

#: Calls that are submitted and not given back, at most.
AHEAD = 2 * WINDOW

Submit = Callable[[Any], Call[Any]]


def in_order(submit: Submit, many: Iterable[Any]) -> Iterator[Any]:
    """Yield the results in the order of the values; closed early, it cancels what is left."""
    waiting: deque[Call[Any]] = deque()
    values = iter(many)
    try:
        while True:
            waiting.extend(map(submit, itertools.islice(values, AHEAD - len(waiting))))
            if not waiting:
                return
            yield waiting[0].result()
            waiting.popleft()
    finally:
        for call in waiting:
            call.cancel()


def as_they_come(submit: Submit, many: Iterable[Any]) -> Iterator[Any]:
    """Yield the results as they come; closed early, it cancels what is left."""
    waiting: set[Future[Any]] = set()
    through: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    values = iter(many)
    try:
        while True:
            for each in map(submit, itertools.islice(values, AHEAD - len(waiting))):
                waiting.add(each)
                # At once, not with the callbacks of users: one of those may be what reads here.
                Future.add_done_callback(each, through.put)
            if not waiting:
                return
            done = through.get()
            waiting.discard(done)
            yield done.result()
    finally:
        for call in waiting:
            call.cancel()
