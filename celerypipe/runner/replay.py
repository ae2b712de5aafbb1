"""Dead letters run again: each goes to the node where it died, and is removed once all that came of it is through."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter

from celerypipe.definition.graph import Graph, reached
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import CodecError, ConfigError, did_you_mean
from celerypipe.message.message import Message
from celerypipe.runner.folder.descent import Descent
from celerypipe.runner.folder.letter import DeadLetter
from celerypipe.runner.folder.letters import DeadLetters
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.station import REPLAY, Station

#: Seconds between two looks at whether all is through.
LOOK = 0.1


class Replay:
    """Feeds dead letters to the stations of one run, in a thread of its own.

    A station that gets letters ends only after the last one, as if one more node sent to it. ``trouble`` is told why
    nothing can be replayed at all.
    """

    def __init__(
        self,
        course: Course,
        letters: DeadLetters,
        stations: Mapping[str, Station],
        trouble: Callable[[ConfigError], None],
    ) -> None:
        self.course = course
        self.letters = letters
        self.stations = stations
        self._trouble = trouble
        self._waiting: deque[DeadLetter | str] = deque()
        self._count = 0
        self._held: list[Station] = []
        #: What was put into a join, in which it died before.
        self._joining: list[tuple[DeadLetter, Message]] = []
        self._lock = threading.Lock()
        self._at_work = False
        self._descent = course.replayed = Descent(attrgetter("id"), self._through, inherited=False)
        course.followers.append(self._descent)

    def hold(self, names: Iterable[str]) -> None:
        """Keep stations from ending before their letters come."""
        for name in names:
            self.stations[name].open_links.add(REPLAY)
            self._held.append(self.stations[name])

    def feed(self, letters: Iterable[DeadLetter | str]) -> None:
        """Replay these, or those of these names, after those before."""
        with self._lock:
            before = len(self._waiting)
            self._waiting.extend(letters)
            self._count += len(self._waiting) - before
            if self._at_work:
                return
            self._at_work = True
        self.course.spawn("replay", self._live)

    @property
    def advance(self) -> tuple[int, int]:
        """Return of how many letters nothing is on its way any more, and how many there are."""
        with self._lock:
            return self._count - len(self._waiting) - self._descent.count, self._count

    def stop(self) -> None:
        """Feed no more; what is on its way still comes out."""
        with self._lock:
            self._waiting.clear()

    def close(self) -> None:
        """The run is over, and all that was to be written is written."""
        if self.course.error is None and not self.course.unwritten:
            for letter, message in self._joining:
                if self._descent.stands(message):
                    self._descent.stays(message)
                    self.course.say(
                        f"dead letter {letter.name}: {letter.start} got no message to join it with; it is kept"
                    )
            self._descent.end()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            with self.letters.replaying():
                while not self.course.over.is_set():
                    letter = self._next()
                    if letter is not None:
                        self._feed(letter)
                        continue
                    self._let_go()
                    if self._is_through():
                        return
                    self.course.over.wait(LOOK)
        except ConfigError as error:
            with self._lock:
                self._waiting.clear()
                self._at_work = False
            self._trouble(error)
        except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not hang it
            self.course.fail(error)
        finally:
            self._let_go()

    def _next(self) -> DeadLetter | str | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _is_through(self) -> bool:
        with self._lock:
            self._at_work = bool(self._waiting) or not self._descent.idle
            return not self._at_work

    def _feed(self, letter: DeadLetter | str) -> None:
        try:
            known = self.letters.get(letter) if isinstance(letter, str) else letter
            station = self.stations.get(known.start)
            message = self.letters.message(known)
        except (CodecError, ConfigError) as error:
            self.course.say(f"dead letters: {error}; it is kept as it is")
            return
        if known.name in self._descent.roots(message):
            return
        if station is None or station.node.type == "source":
            self.course.say(f"dead letter {known.name}: no node {known.start!r} takes messages here; it is kept")
            return
        link = known.link if station.join.links else ""
        if link and link not in station.join.links:
            self.course.say(f"dead letter {known.name}: no node {link!r} sends to {known.start!r} here; it is kept")
            return
        if not station.hold(REPLAY):
            self.course.say(f"dead letter {known.name}: {known.start} takes no more, its run ends; it is kept")
            return
        if station not in self._held:
            self._held.append(station)
        self._descent.begin(known.name, message.id)
        self.course.sent(message, None)
        if link:
            self._joining.append((known, message))
        station.offer(link or REPLAY, message)
        self._descent.begun(message.id)

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for station in held:
            station.end(REPLAY)

    def _through(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self.letters.remove(name)
            except OSError as error:
                self.course.say(f"dead letter {name} succeeded and cannot be removed: {error}")


def starts_of(pipeline: Pipeline, letters: Iterable[DeadLetter]) -> tuple[str, ...]:
    """Return the nodes where these letters go in; :class:`ConfigError` if this pipeline has no such node."""
    names = [node.name for node in pipeline.nodes if node.type != "source"]
    starts = tuple(dict.fromkeys(letter.start for letter in letters))
    for name in starts:
        if name not in names:
            count = sum(1 for letter in letters if letter.start == name)
            raise ConfigError(
                f"{count} of the dead letters died at a node {name!r}, and none that takes messages is called so in "
                f"pipeline {pipeline.name!r}{did_you_mean(name, names)}; give the node its name again, "
                "replay the others (--node), or remove these"
            )
    return starts


def concerned(graph: Graph, starts: Iterable[str]) -> frozenset[str]:
    """Return these nodes and all after them: what else there is in the pipeline has nothing to do in a replay."""
    return reached(starts, lambda name: [link.target for link in graph.downstream(name)])


def no_loose_ends(pipeline: Pipeline, graph: Graph, names: frozenset[str]) -> None:
    """Raise :class:`ConfigError` where results of a replay would go nowhere, so that the letters would be lost."""
    for name in graph.ends:
        if name in names and pipeline.node(name).type != "sink":
            raise ConfigError(
                f"what {name!r} sends goes nowhere, and replayed messages would be lost there: link it to a sink, or "
                "read what comes out with `for message in runner.stream(pipeline, replay=letters)`"
            )
