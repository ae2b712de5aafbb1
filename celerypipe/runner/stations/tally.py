"""Counting while a run goes on: what a Report is made from. Flat in memory, however long the run."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import exp, floor, log

from celerypipe.runner.report import NodeReport, Quantiles

#: How wide a bucket is, and the one of the shortest durations.
WIDTH = log(1.02)
LEAST = floor(log(1e-6) / WIDTH)


class Histogram:
    """Durations in buckets 2 % wide: quantiles within 1 %, memory bounded by the range and not by the count."""

    def __init__(self) -> None:
        #: Seconds of all of them together.
        self.total = 0.0
        self._buckets: defaultdict[int, int] = defaultdict(int)

    def __bool__(self) -> bool:
        """Was anything counted?"""
        return bool(self._buckets)

    def add(self, seconds: float) -> None:
        """Count one duration; anything below a microsecond counts as one."""
        self.total += seconds
        self._buckets[floor(log(seconds) / WIDTH) if seconds > 1e-6 else LEAST] += 1

    def quantiles(self) -> Quantiles | None:
        """Median and 99th percentile in seconds; None when nothing was counted."""
        spread = self.spread()
        return Quantiles(_at(spread, 0.50), _at(spread, 0.99)) if spread else None

    def spread(self) -> list[tuple[float, int]]:
        """Return the middle of each bucket, in seconds, and how many fell in it; the shortest first."""
        buckets = sorted(self._buckets.copy().items())  # a copy: they are counted meanwhile
        return [(exp((bucket + 0.5) * WIDTH), count) for bucket, count in buckets]


def _at(spread: list[tuple[float, int]], part: float) -> float:
    wanted, seen = part * sum(count for _, count in spread), 0
    for seconds, count in spread:
        seen += count
        if seen >= wanted:
            return seconds
    return 0.0


class Tally:
    """The counters of one node in one run. Each is written by one thread at a time; reading a moment late is fine."""

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0
        self.retried = 0
        self.skipped = 0
        self.dropped = 0
        self.unmatched = 0
        self.dead = 0
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self.bytes_saved = 0
        self.seconds_saved = 0.0
        self.failed: Counter[str] = Counter()
        #: How many messages of a warped node ended how, see :data:`celerypipe.mailbox.counts.OUTCOMES`.
        self.outcomes: defaultdict[str, int] = defaultdict(int)
        #: Seconds of the longest warm-up of its node.
        self.warmup = 0.0
        #: Does it warm up on a worker now, for its first message?
        self.warming = False
        self.waiting = Histogram()
        self.running = Histogram()
        self.transfer = Histogram()

    def came_back(self, waited: float, ran: float, travelled: float) -> None:
        """Count the seconds that one message took."""
        self.waiting.add(waited)
        self.running.add(ran)
        self.transfer.add(travelled)

    def warmed(self, seconds: float) -> None:
        """Note how long the node took to warm up, in one process."""
        self.warmup = max(self.warmup, seconds)

    def hit(self, size: int, seconds: float) -> None:
        """Count a result that was in the result cache: its bytes, and the seconds that computing it took."""
        self.hits += 1
        self.bytes_saved += size
        self.seconds_saved += seconds

    def report(self, name: str, mark: str, queue: str) -> NodeReport:
        """Freeze the counters."""
        return NodeReport(
            name=name,
            mark=mark,
            queue=queue,
            received=self.received,
            sent=self.sent,
            failed=dict(self.failed),
            retried=self.retried,
            skipped=self.skipped,
            dropped=self.dropped,
            unmatched=self.unmatched,
            dead=self.dead,
            bytes=self.bytes,
            waiting=self.waiting.quantiles(),
            running=self.running.quantiles(),
            transfer=self.transfer.quantiles(),
            warmup=self.warmup,
            warming=self.warming and not self.running,
            hits=self.hits,
            misses=self.misses,
            hit_rate=self.hits / (self.hits + self.misses) if self.hits + self.misses else None,
            bytes_saved=self.bytes_saved,
            seconds_saved=self.seconds_saved,
        )
