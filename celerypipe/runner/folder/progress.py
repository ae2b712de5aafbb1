"""How far the sources of a run are: each message of theirs is followed until nothing that came of it is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path

from celerypipe.contract.positions import Position, Positions
from celerypipe.message.message import Message
from celerypipe.runner.folder.descent import Descent
from celerypipe.runner.folder.journal import Journal

#: Seconds between two writes: what came through since the last one is sent again after a ``kill -9``.
PERIOD = 1.0

#: Why a run with such a node is not resumed.
REMEMBERS = "{!r} is stateful, and what it remembers is lost with its run"


#: A message of a source: its origin, the source, where it stands there, and its number.
_SourceMessage = tuple[str, str, Position, int]


class Progress:
    """Follows each source message, and writes down in the journal which ones are through.

    ``say`` is told, once, when that cannot be written: the run goes on.
    """

    def __init__(self, journal: Journal, say: Callable[[str], None]) -> None:
        self._journal = journal
        self._say = say
        self._silent = False
        self._closed = False
        self._failed = False
        #: What descends from each source message, known by its origin.
        self.descent = Descent(attrgetter("origin"), self._done_with, inherited=True)
        self._done: list[_SourceMessage] = []
        #: How many of its messages have a key, by origin and what the keys begin with.
        self._counts: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    # -- what went before -------------------------------------------------------------------------------------------

    @property
    def earlier(self) -> Sequence[str]:
        """The runs that this one goes on from."""
        return self._journal.content.runs[:-1]

    def through(self, source: str) -> Positions:
        """Return the positions of a source that were through when this run began."""
        return self._journal.content.through.get(source, Positions())

    def following(self, source: str) -> int:
        """Return the number for the next message of a source that does not number them itself."""
        return self._journal.content.following.get(source, 0)

    def record(self, node: str) -> Path:
        """Return the file in which this sink may note what it wrote."""
        return self._journal.record(node)

    # -- messages ---------------------------------------------------------------------------------------------------

    def begin(self, source: str, position: Position, number: int, origin: str) -> None:
        """A message of a source is about to be handed on; it is out until :meth:`begun` is called for it."""
        self.descent.begin((origin, source, position, number), origin)

    def begun(self, origin: str) -> None:
        """The message was handed on."""
        self.descent.begun(origin)

    def _done_with(self, messages: list[_SourceMessage]) -> None:
        with self._lock:
            if not self._failed:
                self._done += messages
            if self._counts:
                for origin, *_ in messages:
                    self._counts.pop(origin, None)

    def fail(self) -> None:
        """The run failed: what comes to its end from now on may be what it failed over."""
        with self._lock:
            self._failed = True

    def key(self, place: str, message: Message) -> str:
        """Return a text that this message has at this place in every run that sends it again; empty if there is none.

        ``place``: the name of a sink, or what else there is only once.
        """
        with self._lock:
            first = next((each for each in self.descent.roots(message) if each[0] == message.origin), None)
            if first is None:
                return ""
            _, source, position, _ = first
            begins = f"{source}/{position}/{message.creator}/{place}"
            counts = self._counts.setdefault(message.origin, {})
            counts[begins] = counts.get(begins, 0) + 1
            return f"{begins}/{counts[begins] - 1}"

    # -- the file ---------------------------------------------------------------------------------------------------

    def live(self, over: threading.Event) -> None:
        """Write once a second until the run is over; the body of a thread."""
        while not over.wait(PERIOD):
            self.flush()

    def flush(self) -> None:
        """Write what came through since the last time."""
        with self._writing:
            with self._lock:
                done, self._done = self._done, []
            if not done or self._closed:
                return
            through: dict[str, Positions] = {}
            following: dict[str, int] = {}
            for _, source, position, number in done:
                through.setdefault(source, Positions()).add(position)
                following[source] = max(number + 1, following.get(source, 0))
            try:
                self._journal.note(through, following)
            except OSError as error:
                with self._lock:
                    self._done += done
                if not self._silent:
                    self._silent = True
                    self._say(f"the journal of this run cannot be written: {error}")

    def forbid(self, obstacle: str) -> None:
        """The run cannot be resumed after all, and this is why."""
        with self._writing:
            if self._closed or self._journal.content.obstacle:
                return
            try:
                self._journal.forbid(obstacle)
            except OSError as error:
                self._say(f"the journal of this run cannot be written: {error}")

    @property
    def obstacle(self) -> str:
        """Why the run cannot be resumed after all; empty: it can."""
        return self._journal.content.obstacle

    def close(self, *, done: bool) -> int:
        """Write the last, and let go of the file; return how many source messages are through.

        A run that is ``done``, or of which nothing is through, leaves no journal behind.
        """
        with self.descent.still():  # what is through by now is noted
            self.flush()
            self._closed = True
        with self._writing:
            count = self._journal.content.count
            if done or not count:
                self._journal.remove()
                return 0
            self._journal.close()
        return count
