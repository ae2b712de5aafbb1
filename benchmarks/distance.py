"""A run and its workers far from Redis: how long the run's look takes, who waits for it, and whether bells are lost."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from types import TracebackType
from typing import Any
from unittest import mock

import redis

from benchmarks.crew import Crew, wait_for
from benchmarks.figures import Sample, Target
from benchmarks.open_runs import open_run, side_by_side
from benchmarks.places import Server
from benchmarks.processes import end, python, start
from celerypipe.redis.connection import Trouble, connect
from celerypipe.runner.carrier.carrier import RedisCarrier
from celerypipe.runner.carrier.sender import Sender

GROUP = "Far from Redis"
#: Milliseconds to Redis and back.
ROUND_TRIPS = (20, 60)
NODES = (1, 8, 32, 64)
QUEUE = "solo"
WORKERS = 2
#: Seconds of a message that is out as long as a run is looked at.
LONG = 60.0
#: To look at bells, so many nodes take a while, and the others are quick: who serves one of those holds all of theirs.
SLOW_NODES = 4
#: Seconds between two looks at the bells.
LOOK = 0.02
#: Seconds until all results of a run have to be back.
PATIENCE = 60.0


class TimedLock:
    """A lock that knows how long it was held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = 0.0
        self.held = 0.0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As that of a lock."""
        taken = self._lock.acquire(blocking, timeout)
        if taken:
            self._since = time.perf_counter()
        return taken

    def release(self) -> None:
        """As that of a lock."""
        self.held += time.perf_counter() - self._since
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Looks:
    """The looks of the runs that begin in a ``with`` block of :meth:`watched`, and the locks of their senders."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.locks: list[TimedLock] = []

    @classmethod
    @contextmanager
    def watched(cls) -> Iterator[Looks]:
        """Time them."""
        looks = cls()
        make: Any = Sender.__init__
        keep: Any = RedisCarrier._keep  # the thing that is timed

        def made(sender: Any, *arguments: Any) -> None:
            make(sender, *arguments)
            sender.lock = TimedLock()
            looks.locks.append(sender.lock)

        def kept(carrier: Any, *arguments: Any) -> None:
            begin = time.perf_counter()
            keep(carrier, *arguments)
            looks.seconds.append(time.perf_counter() - begin)

        with mock.patch.object(Sender, "__init__", made), mock.patch.object(RedisCarrier, "_keep", kept):
            yield looks


class BellWatch:
    """Counts the bells that lapse while an activation holds them, and the tasks that are sent. From near Redis."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._client.config_set("notify-keyspace-events", "Ex")
        client: Any = self._client
        self._lapses = client.pubsub(ignore_subscribe_messages=True)
        self._lapses.psubscribe("__keyevent@*__:expired")
        self._values: dict[bytes, bytes] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="benchmarks-bells", daemon=True)
        self._tasks = self._pushed()
        self.lost = 0
        self.unanswered = 0
        self.most_held = 0
        self._thread.start()

    def close(self) -> None:
        """Stop counting."""
        self._over.set()
        self._thread.join()
        self._lapses.close()
        self._client.close()

    @property
    def tasks(self) -> int:
        """The tasks that were sent since it watches."""
        return self._pushed() - self._tasks

    def _pushed(self) -> int:
        stats: Any = self._client.info("commandstats")
        return int(stats.get("cmdstat_lpush", {}).get("calls", 0))

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            while (message := self._lapses.get_message()) is not None:
                value = self._values.pop(message["data"], None)
                self.lost += _is_held(value)
                self.unanswered += value is not None and not _is_held(value)
            found = list(self._client.scan_iter("celerypipe:bell:*", count=10_000))
            values: Any = self._client.mget(found) if found else []
            self._values.update({name: value for name, value in zip(found, values, strict=True) if value is not None})
            self.most_held = max(self.most_held, sum(_is_held(value) for value in values))


def _is_held(value: bytes | None) -> bool:
    return value is not None and not value.startswith(b"r:")


@contextmanager
def far_away(server: Server, milliseconds: float) -> Iterator[str]:
    """The address of a way to the server that takes so long there and back."""
    with socket.socket() as probe:
        probe.bind((server.host, 0))
        port = probe.getsockname()[1]
    log = server.folder / "delay.log"
    with log.open("wb") as file:
        words = (str(port), str(server.port), str(milliseconds / 2000))
        process = start(python("benchmarks.delay", *words), log=file)
    url = f"redis://{server.host}:{port}/0"

    def answers() -> bool:
        with suppress(*Trouble), connect(url, timeout=5.0) as client:
            return bool(client.ping())
        return False

    try:
        wait_for(answers, "the way to Redis", process, log)
        yield url
    finally:
        end([process])


def distance(*, seconds: float, quick: bool) -> Iterator[Sample]:
    """For each round trip and number of nodes: the looks of a run, then the bells that its workers hold."""
    for milliseconds in ROUND_TRIPS[:1] if quick else ROUND_TRIPS:
        with (
            Server() as server,
            far_away(server, milliseconds) as url,
            closing(Crew(url, server.folder, "far")) as crew,
        ):
            crew.workers(QUEUE, WORKERS)
            for count in NODES[:1] if quick else NODES:
                where = f"{count} node{'s' if count > 1 else ''}, {milliseconds} ms to Redis and back"
                found = (*_looks(url, count, seconds), *_bells(server, url, count, seconds / 2))
                for figure, unit, value, target in found:
                    yield Sample(where, figure, unit, value, target=target, group=GROUP)


def _looks(url: str, count: int, seconds: float) -> Iterator[tuple[str, str, float, Target | None]]:
    with Looks.watched() as looks, open_run(url, side_by_side(QUEUE, [LONG] * count)):
        time.sleep(seconds / 4)  # until the run has begun
        (lock,) = looks.locks
        held, first, begin = lock.held, len(looks.seconds), time.perf_counter()
        time.sleep(seconds)
        share = (lock.held - held) / (time.perf_counter() - begin)
        spent = looks.seconds[first:]
    yield "a look of the run, p50", "ms", statistics.median(spent) * 1000, None
    yield "a look of the run, longest", "ms", max(spent) * 1000, None
    yield "the sender's lock is held", "%", share * 100, None


def _bells(server: Server, url: str, count: int, slow: float) -> Iterator[tuple[str, str, float, Target | None]]:
    every = max(1, count // SLOW_NODES)
    takes = [0.0 if number % every else slow for number in range(count)]
    with closing(BellWatch(server.url("tcp"))) as bells:
        begin = time.perf_counter()
        with open_run(url, side_by_side(QUEUE, takes)) as came:
            while len(came) < count:
                if time.perf_counter() - begin > PATIENCE:
                    raise RuntimeError(f"{len(came)} of {count} results came back in {PATIENCE:.0f} s")
                time.sleep(LOOK)
            spent = time.perf_counter() - begin
        yield "bells that lapse while held", "", bells.lost, Target(0, of="figure")
        yield "bells that lapse unanswered", "", bells.unanswered, None
        yield "most bells held at a time", "", bells.most_held, None
        yield "tasks sent", "", bells.tasks, None
        yield "all results are back after", "s", spent, None
