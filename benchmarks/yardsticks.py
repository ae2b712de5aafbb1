"""Yardsticks: what Redis and plain Celery do on this machine at this moment, for ratios to be taken of."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.opposite import TOGETHER
from benchmarks.places import Place
from celerypipe.redis.connection import connect

#: What a tiny message carries.
TINY = b"x" * 100
#: Entries that may be on their way in the streams yardstick.
OUTSTANDING = 4 * TOGETHER


def settled(times: list[float]) -> list[float]:
    """The times without the first tenth, which warms up."""
    return times[max(1, len(times) // 10) :] or times


class Yardsticks:
    """The yardsticks at one place. Times are medians in seconds, rates are messages a second."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.client = connect(place.url, name="benchmarks")

    def close(self) -> None:
        """Let go of the connection."""
        self.client.close()

    def ping_pong(self, count: int) -> float:
        """One tiny item over two lists to another bare process and back."""
        self.place.opposite("pong")
        times = []
        for _ in range(count):
            start = time.perf_counter()
            self.client.rpush("bench:ping", TINY)
            if self.client.blpop(["bench:pong"], 5) is None:
                raise RuntimeError("the other end of ping-pong does not answer")
            times.append(time.perf_counter() - start)
        return statistics.median(settled(times))

    def streams(self, count: int) -> float:
        """Tiny entries a second through two streams and two bare processes, a hundred at a time, window full."""
        self.place.opposite("streams")
        self._exchange(OUTSTANDING)
        start = time.perf_counter()
        got = self._exchange(count)
        return got / (time.perf_counter() - start)

    def _exchange(self, count: int) -> int:
        sent = got = 0
        read: list[Any] = []
        while got < count:
            together = self.client.pipeline(transaction=False)
            if read:
                together.xdel("bench:back", *read)
            while sent < count and sent - got < OUTSTANDING:
                for _ in range(TOGETHER):
                    together.xadd("bench:there", {b"d": TINY})
                sent += TOGETHER
            together.xread({"bench:back": "0"}, count=TOGETHER, block=5000)
            answer = together.execute()[-1]
            if not answer:
                raise RuntimeError("the other end of the streams does not answer")
            read = [name for name, _ in answer[0][1]]
            got += len(read)
        self.client.xdel("bench:back", *read)
        return got

    def store_and_fetch(self, data: bytes, count: int) -> float:
        """A SET here plus a GET in another process; telling it to is not counted."""
        self.place.opposite("fetch")
        times = []
        for _ in range(count):
            start = time.perf_counter()
            self.client.set("bench:data", data)
            stored = time.perf_counter() - start
            self.client.rpush("bench:fetch", "bench:data")
            item: Any = self.client.blpop(["bench:fetched"], 5)
            seconds, length = item[1].split()
            if int(length) != len(data):
                raise RuntimeError("the other end fetched something else")
            times.append(stored + float(seconds))
        self.client.delete("bench:data")
        return statistics.median(settled(times))

    def plain_once(self, count: int, pause: float = 0.0) -> float:
        """Plain Celery: ``delay().get()``, one after the other; ``pause``: seconds before each."""
        task = self.place.plain().tasks["same"]
        text = TINY.decode()
        times = []
        for _ in range(count):
            time.sleep(pause)
            start = time.perf_counter()
            task.delay(text).get(timeout=30)
            times.append(time.perf_counter() - start)
        return statistics.median(settled(times))

    def plain_flight(self, count: int, together: int = 200) -> float:
        """Plain Celery: tasks a second, two hundred in flight."""
        task = self.place.plain().tasks["same"]
        text = TINY.decode()
        start = time.perf_counter()
        for _ in range(0, count, together):
            for result in [task.delay(text) for _ in range(together)]:
                result.get(timeout=60)
        return count / (time.perf_counter() - start)
