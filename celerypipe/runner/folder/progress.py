"""How far the sources of a run are: each message of theirs is followed until nothing that came of it is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from celerypipe.contract.positions import Position, Positions
from celerypipe.message.message import Message
from celerypipe.runner.folder.journal import Journal

#: Seconds between two writes: what came through since the last one is sent again after a ``kill -9``.
PERIOD = 1.0

#: Why a run with such a node is not resumed.
REMEMBERS = "{!r} is stateful, and what it remembers is lost with its run"


@dataclass(slots=True, eq=False)
class _SourceTree:
    """Source messages, by origin, and all that came of them: ``out`` messages are still on their way.

    ``counts``: how many of its messages have a key, by origin and what the keys begin with.
    """

    out: int = 0
    sources: dict[str, list[tuple[str, Position, int]]] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)


class Progress:
    """Counts what descends from each source message, and writes down in the journal which ones are through.

    ``say`` is told, once, when that cannot be written: the run goes on.
    """

    def __init__(self, journal: Journal, say: Callable[[str], None]) -> None:
        self._journal = journal
        self._say = say
        self._silent = False
        self._closed = False
        self._trees: dict[str, _SourceTree] = {}
        self._done: list[tuple[str, Position, int]] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    # -- what went before -------------------------------------------------------------------------------------------

    @property
    def resumed(self) -> bool:
        """Does this run go on from another?"""
        return len(self._journal.content.runs) > 1

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
        with self._lock:
            tree = self._trees.setdefault(origin, _SourceTree())
            tree.out += 1
            tree.sources.setdefault(origin, []).append((source, position, number))

    def begun(self, origin: str) -> None:
        """The message was handed on."""
        with self._lock:
            self._leave(origin)

    def sent(self, message: Message, nodes: int = 1) -> None:
        """A message is about to be offered to so many nodes; it is out until :meth:`left` is called for each."""
        with self._lock:
            tree = self._trees.get(message.origin)
            if tree is not None:
                tree.out += nodes

    def left(self, message: Message) -> None:
        """A message is through a node and what came of it was sent; or it was given up."""
        with self._lock:
            self._leave(message.origin)

    def _leave(self, origin: str) -> None:
        tree = self._trees.get(origin)
        if tree is None:
            return
        tree.out -= 1
        if tree.out <= 0:
            for each, positions in tree.sources.items():
                del self._trees[each]
                self._done += positions

    def joined(self, parts: Sequence[Message]) -> None:
        """A join made one message of these, with the origin of the first: they are through together."""
        with self._lock:
            origin = parts[0].origin
            first = self._trees.get(origin) or _SourceTree(1, {origin: []})
            for part in parts[1:]:
                tree = self._trees.get(part.origin)
                if tree is None:
                    continue
                first.out -= 1
                if tree is not first:
                    first.out += tree.out
                    first.sources |= tree.sources
                    first.counts |= tree.counts
                    self._trees.update(dict.fromkeys(first.sources, first))

    def key(self, sink: str, message: Message) -> str:
        """Return a text that this message has at this sink in every run that sends it again; empty if there is none."""
        with self._lock:
            tree = self._trees.get(message.origin)
            if tree is None or not tree.sources[message.origin]:
                return ""
            source, position, _ = tree.sources[message.origin][0]
            place = f"{source}/{position}/{message.creator}/{sink}"
            count = tree.counts.get((message.origin, place), 0)
            tree.counts[message.origin, place] = count + 1
        return f"{place}/{count}"

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
            for source, position, number in done:
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

    def close(self, *, done: bool) -> int:
        """Write the last, and let go of the file; return how many source messages are through.

        A run that is ``done``, or of which nothing is through, or that cannot go on, leaves no journal behind.
        """
        self.flush()
        with self._writing:
            self._closed = True
            count = self._journal.content.count
            if done or not count or self._journal.content.obstacle:
                self._journal.remove()
                return 0
            self._journal.close()
        return count
