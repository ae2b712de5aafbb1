"""Where messages spent their time: kept for the slowest of each node, and for those that failed last.

What each message costs is a note when it comes and one when it is through; only of those that are kept is a path made,
of all nodes that the message, and what came of it, passed.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from celerypipe.errors import NodeError
from celerypipe.message.message import Message

#: Messages of each node that are kept: the slowest, in all and in the node itself, and the last that failed.
SLOWEST, FAILED = 20, 20
#: What becomes of a message that is no failure.
FINE = ("done", "cached")
#: Hops of any messages that are remembered, since one of them may turn out to be slow further on.
RECENT = 512
#: Messages that are not through at most: the time when the oldest one came is forgotten.
OPEN = 20_000
#: Hops of one path at most.
LONGEST = 100


class Attempt(NamedTuple):
    """A try that failed: when it was over, by the monotonic clock, why, and where."""

    at: float
    error: str
    worker: str


class Hop(NamedTuple):
    """A message at a node. ``came``, ``sent``, ``done``: by the monotonic clock.

    ``sent``: the last attempt began, at a warped node by being sent; ``waited`` until a worker took it, ``warmed`` and
    ``ran`` there. ``outcome``: ``done``, ``cached``, or the kind of the failure.
    """

    node: str
    message: str
    origin: str
    number: int
    came: float
    sent: float
    done: float
    waited: float
    warmed: float
    ran: float
    outcome: str
    worker: str = ""
    attempts: tuple[Attempt, ...] = ()

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.done - self.came

    def to_dict(self, began: float) -> dict[str, Any]:
        """Return it as JSON values, with times in seconds of the run, which ``began`` then."""
        times = {name: getattr(self, name) - began for name in ("came", "sent", "done")}
        attempts = [{**each._asdict(), "at": each.at - began} for each in self.attempts]
        return {**self._asdict(), **times, "attempts": attempts, "seconds": self.seconds, "parts": dict(self.parts())}

    def parts(self) -> Iterator[tuple[str, float]]:
        """Yield what its time went to, in order: before it was sent, then there, and what is left is the way."""
        yield "hold", max(0.0, self.sent - self.came)
        yield "wait", self.waited
        yield "warm-up", self.warmed
        yield "run", self.ran
        yield "transfer", max(0.0, self.done - self.sent - self.waited - self.warmed - self.ran)


class Traces:
    """Those of one run. Its stations tell it, each from several threads."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        #: When messages came that are not through, and which attempts failed, by node and id.
        self._open: dict[tuple[str, str], float] = {}
        self._attempts: dict[tuple[str, str], list[Attempt]] = {}
        self._recent: deque[Any] = deque(maxlen=RECENT)
        #: By node: those that took longest to pass it, and those that it worked on for longest.
        self._slowest: dict[str, tuple[list[tuple[float, str]], list[tuple[float, str]]]] = {}
        #: From when on one is among them.
        self._least: dict[str, tuple[float, ...]] = {}
        self._failed: dict[str, deque[str]] = {}
        #: What is kept, by origin.
        self._paths: dict[str, list[Hop]] = {}
        #: As it was put together last, until there is more: at the end of a run several want it.
        self._listed: list[dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def came(self, node: str, message: Message) -> None:
        """A message is here, for the first time."""
        self._open.setdefault((node, message.id), time.monotonic())
        if len(self._open) > OPEN:  # what finds no partner never is through
            with contextlib.suppress(RuntimeError, StopIteration):  # another thread takes one out
                self._open.pop(next(iter(self._open)), None)

    def failed(self, node: str, message: Message, error: BaseException) -> None:
        """An attempt failed."""
        kind = error.kind if isinstance(error, NodeError) else type(error).__name__
        worker = getattr(error, "worker", "")
        if len(self._attempts) > OPEN:
            self._attempts.clear()
        found = self._attempts.setdefault((node, message.id), [])
        found.append(Attempt(time.monotonic(), kind, worker))

    def taken_over(self, node: str, message: Message, holder: str, seconds: float) -> None:
        """It was run once more, for so many seconds, since the process ended that had it before."""
        attempt = Attempt(time.monotonic() - seconds, "lost", holder)
        self._attempts.setdefault((node, message.id), []).append(attempt)

    def through(
        self,
        node: str,
        message: Message,
        outcome: str,
        *,
        sent: float = 0.0,
        times: tuple[float, float, float] = (0.0, 0.0, 0.0),
        worker: str = "",
        beyond: float = 0.0,
    ) -> None:
        """A message is through. ``sent``: when its last attempt began; ``times``: it waited, warmed up, ran there.

        ``beyond``: seconds that the nodes after it ran meanwhile, to which its worker went on by itself; the runner
        hears of all of them together, and of when they began only so.
        """
        now = time.monotonic() - beyond
        came = self._open.pop((node, message.id), None)
        if came is None:
            came = now - sum(times)
        now = max(now, came)
        attempts = tuple(self._attempts.pop((node, message.id), ())) if self._attempts else ()
        origin = message.origin or message.id
        start = sent if sent > came else came
        # A tuple until somebody wants more of it: most of them are forgotten.
        fields = (node, message.id, origin, message.sequence, came, start, now, *times, outcome, worker, attempts)
        self._recent.append(fields)
        least = self._least.get(node, (-1.0, -1.0))
        is_bad = bool(attempts) or outcome not in FINE
        if now - came > least[0] or times[1] + times[2] > least[1] or is_bad or origin in self._paths:
            with self._lock:
                self._keep(Hop._make(fields), is_bad=is_bad)

    def _keep(self, hop: Hop, *, is_bad: bool) -> None:
        self._listed = None
        lists = self._slowest.setdefault(hop.node, ([], []))
        # Who waits behind a slow one is slow too: so those that took long themselves are kept beside them.
        gone = kept = False
        for slowest, seconds in zip(lists, (hop.seconds, hop.warmed + hop.ran), strict=True):
            if len(slowest) < SLOWEST or seconds > slowest[0][0]:
                heapq.heappush(slowest, (seconds, hop.origin))
                kept = True
            if len(slowest) > SLOWEST:
                heapq.heappop(slowest)
                gone = True
        self._least[hop.node] = tuple(each[0][0] if len(each) == SLOWEST else -1.0 for each in lists)
        if not (kept or is_bad or hop.origin in self._paths):
            return
        if is_bad:
            failed = self._failed.setdefault(hop.node, deque(maxlen=FAILED))
            gone = gone or len(failed) == FAILED
            failed.append(hop.origin)
        path = self._paths.get(hop.origin)
        if path is None:
            self._paths[hop.origin] = [Hop._make(each) for each in list(self._recent) if each[2] == hop.origin]
        elif len(path) < LONGEST:
            path.append(hop)
        if gone:
            self._forget()

    def _forget(self) -> None:
        """Keep no path that nobody is kept for."""
        kept = {origin for lists in self._slowest.values() for slowest in lists for _, origin in slowest}
        kept |= {origin for failed in self._failed.values() for origin in failed}
        for origin in [each for each in self._paths if each not in kept]:
            del self._paths[origin]

    def to_list(self) -> list[dict[str, Any]]:
        """Return the paths that are kept as JSON values, the longest first; not to be changed."""
        with self._lock:
            if self._listed is None:
                paths = [sorted(path, key=lambda hop: hop.came) for path in self._paths.values() if path]
                self._listed = sorted((_path(path, self._began) for path in paths), key=lambda path: -path["seconds"])
            return self._listed


def best(paths: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Return so many of them: of those that took longest, were worked on for longest, and failed, in turn."""

    def work(path: dict[str, Any]) -> float:
        return max(float(hop["warmed"] + hop["ran"]) for hop in path["hops"])

    bad = [path for path in paths if any(hop["outcome"] not in FINE or hop["attempts"] for hop in path["hops"])]
    kinds = (paths, sorted(paths, key=work, reverse=True), bad)
    chosen = {id(path): path for each in zip_longest(*kinds) for path in each if path is not None}
    return sorted(islice(chosen.values(), most), key=lambda path: -path["seconds"])


def _path(hops: Iterable[Hop], began: float) -> dict[str, Any]:
    found = list(hops)
    first, last = found[0], max(each.done for each in found)
    return {
        "origin": first.origin,
        "number": first.number,
        "began": first.came - began,
        "seconds": last - first.came,
        "hops": [each.to_dict(began) for each in found],
    }
