"""What the result cache costs: hits and misses a second, beside bare GETs of the same bytes.

``python -m benchmarks.cache`` starts a Redis of its own on a unix socket. *One at a time*: the next question is asked
when the answer is there, from another thread than the cache's. *In flight*: 64 questions wait at any time. Questions
are asked with their fingerprints, as a run asks them: that is in the figures; digesting a payload is not.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.places import Server
from celerypipe.cache.asked import Asked
from celerypipe.cache.cache import ResultCache
from celerypipe.cache.index import entries
from celerypipe.cache.question import Claim, Found, Question
from celerypipe.definition.cache import CacheDefinition
from celerypipe.message.message import Message
from celerypipe.redis.connection import Client, connect
from celerypipe.redis.keys import USUAL
from celerypipe.redis.url import read_address
from celerypipe.settings import CacheSettings

COUNT = 10_000
WINDOW = 64
KEPT = 1000
ROUNDS = 5
POLICY = CacheDefinition()
PARENT = Message("in", {"path": "picture.png", "page": 3})
#: What a node found in a picture.
SMALL = {"boxes": [(12, 40, 96, 120)], "label": "face", "score": 0.93}


def asked(kind: str, number: int) -> Asked:
    """A question as a run asks it; made anew each time, as messages are."""
    return Asked("tasks.cpu.Detect", "version 1", {"threshold": "0.5"}, f"{kind} {number}", {}, "exact")


class Asking:
    """Asks a cache, with a window of questions that wait."""

    def __init__(self, cache: ResultCache) -> None:
        self.cache = cache

    def one_at_a_time(self, kind: str, count: int) -> float:
        """Questions a second."""
        done = threading.Event()

        def told(answer: Found | Claim | None) -> None:
            _end(answer)
            done.set()

        begin = time.perf_counter()
        for number in range(count):
            done.clear()
            self.cache.post(Question(asked(kind, number % KEPT), POLICY, told))
            done.wait()
        return count / (time.perf_counter() - begin)

    def in_flight(self, kind: str, count: int) -> float:
        """Questions a second."""
        room = threading.Semaphore(WINDOW)

        def told(answer: Found | Claim | None) -> None:
            _end(answer)
            room.release()

        begin = time.perf_counter()
        for number in range(count):
            room.acquire()
            self.cache.post(Question(asked(kind, number % KEPT), POLICY, told))
        for _ in range(WINDOW):
            room.acquire()
        return count / (time.perf_counter() - begin)

    def keep(self, kind: str, payload: Any, count: int) -> float:
        """Misses that are kept, a second."""
        room = threading.Semaphore(WINDOW)

        def told(answer: Found | Claim | None) -> None:
            if isinstance(answer, Claim):
                answer.keep([PARENT.with_payload(payload)], PARENT, seconds=0.1)
            room.release()

        begin = time.perf_counter()
        for number in range(count):
            room.acquire()
            self.cache.ask(asked(kind, number), POLICY, told)
        for _ in range(WINDOW):
            room.acquire()
        while self.cache.stats.kept < self.cache.stats.misses:
            time.sleep(0.001)
        return count / (time.perf_counter() - begin)


def _end(answer: Found | Claim | None) -> None:
    if not isinstance(answer, Found):
        raise TypeError("it should have been found")
    answer.outputs(PARENT)


def bare(client: Client, count: int) -> tuple[float, float]:
    """GETs a second of an entry's bytes: one at a time, and 64 together."""
    name = USUAL.cache_entry(next(entries(client)).fingerprint)
    begin = time.perf_counter()
    for _ in range(count):
        client.call("GET", name)
    alone = count / (time.perf_counter() - begin)
    begin = time.perf_counter()
    for _ in range(count // WINDOW):
        client.together(*[("GET", name)] * WINDOW)
    return alone, count / (time.perf_counter() - begin)


def best(measure: Callable[[], float]) -> tuple[float, float]:
    """The median and the best of some rounds."""
    found = [measure() for _ in range(ROUNDS)]
    return statistics.median(found), max(found)


def main() -> None:
    """Measure, and print a line each."""
    frame = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    with Server() as server, connect(server.url("unix")) as client:
        url = server.url("unix")
        cache = ResultCache(read_address(url), settings=CacheSettings(bytes=4 << 30), keyring=None, say=print)
        asking = Asking(cache)
        print(f"{'':44}{'median/s':>12}{'best/s':>12}")
        kinds = iter(f"small {number}" for number in range(ROUNDS))
        lines = {"miss, kept, in flight": best(lambda: asking.keep(next(kinds), SMALL, KEPT))}
        asking.keep("frame", frame, 20)
        lines |= {
            "hit, one at a time": best(lambda: asking.one_at_a_time("small 0", COUNT)),
            "hit, in flight": best(lambda: asking.in_flight("small 0", COUNT)),
            "GET, one at a time (bare)": best(lambda: bare(client, COUNT)[0]),
            "GET, 64 together (bare)": best(lambda: bare(client, COUNT)[1]),
        }
        for name, (median, top) in lines.items():
            print(f"{name:44}{median:12,.0f}{top:12,.0f}")
        hits = cache.stats.hits
        each = 1 / asking.one_at_a_time("frame", 20)
        print(f"{'hit, a frame of 900 KB, one at a time':44}{each * 1e3:12.2f} ms")
        if cache.stats.hits != hits + 20:
            raise SystemExit("a frame was not found")
        cache.close()


if __name__ == "__main__":
    main()
