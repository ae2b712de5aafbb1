"""A function over many values: submitted as they are needed, given back as they come or in their order."""

from __future__ import annotations

import itertools
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from celerypipe.runner.functions.call import Call
from celerypipe.runner.functions.function import WINDOW

#: Calls that are submitted and not given back, at most.
AHEAD = 2 * WINDOW

Submit = Callable[[Any], Call[Any]]


def in_order(submit: Submit, many: Iterable[Any]) -> Iterator[Any]:
    """Yield the results in the order of the values; closed early, it cancels what is left."""
    waiting: deque[Call[Any]] = deque()
    calls = map(submit, many)
    try:
        while True:
            for call in itertools.islice(calls, AHEAD - len(waiting)):
                waiting.append(call)
                if waiting[0].done():  # values may come slowly: their results need not wait for more of them
                    break
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
    calls = map(submit, many)
    try:
        while True:
            for call in itertools.islice(calls, AHEAD - len(waiting)):
                waiting.add(call)
                # At once, not with the callbacks of users: one of those may be what reads here.
                Future.add_done_callback(call, through.put)
                if not through.empty():
                    break
            if not waiting:
                return
            done = through.get()
            waiting.discard(done)
            yield done.result()
    finally:
        for each in waiting:
            each.cancel()
