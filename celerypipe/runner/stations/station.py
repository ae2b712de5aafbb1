"""A node's place in a run: what comes in, what goes out, and what happens when it fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from celerypipe.catalogue.instance import Instance
from celerypipe.contract.contract import Node
from celerypipe.definition.pipeline import Link, NodeDefinition
from celerypipe.errors import NodeError
from celerypipe.message.console import Console
from celerypipe.message.message import Message, stamped
from celerypipe.message.ownership import own
from celerypipe.runner.report import NodeReport
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.failures import Failures, as_failure
from celerypipe.runner.stations.join import Join, Unjoinable
from celerypipe.runner.stations.places import Places
from celerypipe.runner.stations.tally import Tally

logger = logging.getLogger(__name__)

#: What to do with a message that a station has no room for: hold the caller up, refuse it, or take it all the same
#: (the caller looked for room a moment ago).
Full = Literal["wait", "refuse", "crowd"]

#: The link that a dead letter comes in by: past the join, which it was through before.
REPLAY = "(replay)"


@dataclass(frozen=True, slots=True)
class Outlet:
    """A link out: the station it leads to."""

    link: Link
    station: Station


class Station:
    """One node in one run. Subclasses say how a message is processed: here, or on a worker."""

    def __init__(self, course: Course, node: NodeDefinition) -> None:
        self.course = course
        self.node = node
        self.name = node.name
        self.tally = Tally()
        self.failures = Failures(course, node, self.tally)
        self.outlets: list[Outlet] = []
        self.open_links: set[str] = set()
        self.join: Join = Join(node.name, (), 1)
        #: Of a sink that writes each message to a place of its own.
        self.places: Places | None = None
        #: Guards what waits in here; ``changed`` tells who waits for room, or for more to come.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        #: No more messages will come.
        self.ended = False
        self.finished = threading.Event()
        #: Messages whose sender waits, or waited when the run ended, for room in here.
        self.at_door = 0
        self._end_lock = threading.Lock()

    # -- what subclasses do -----------------------------------------------------------------------------------------

    def warm_up(self, instance: Instance) -> Node:
        """Warm its node up, and note how long that took: it is no message's time."""
        began = time.monotonic()
        node = instance.warm()
        self.tally.warmed(time.monotonic() - began)
        return node

    def prepare(self) -> None:
        """Get ready for the first message; raise when that cannot be."""

    def start(self) -> None:
        """Begin to take messages."""

    def offer(self, link: str, message: Message, *, full: Full = "wait") -> bool:
        """Take a message from a link. False: it has no room and ``full`` is ``refuse``, or the run is over."""
        raise NotImplementedError

    def has_room(self, count: int) -> bool:
        """Could it take so many messages now without holding anyone up?"""
        raise NotImplementedError

    @property
    def may_hold_up(self) -> bool:
        """May somebody who waits for room hold up even who offers what may be refused?"""
        return False

    def drained(self) -> None:
        """Called when the last upstream node has ended: finish when everything in hand is out."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def check(self, now: float) -> None:
        """Called about 20 times a second with ``time.monotonic()``: hold the node to its timeout."""

    def obey(self) -> None:
        """Called by its thread between two messages: do what was ordered of the node meanwhile."""

    def close(self) -> None:
        """Called once the run is over."""
        with self.changed:
            self.changed.notify_all()

    def discard(self) -> None:
        """Called when the run could not begin: let go of what :meth:`prepare` made."""

    @property
    def in_hand(self) -> int:
        """How many messages are in here: they wait for their turn, are worked on, or are out with a worker."""
        return 0

    @property
    def unseen(self) -> int:
        """How many of those in hand the tally does not count as received yet."""
        return 0

    # -- what all do ------------------------------------------------------------------------------------------------

    def hold(self, link: str) -> bool:
        """Wait for messages of one more link until it ends; False: nothing more is taken."""
        with self._end_lock:
            if self.open_links:
                self.open_links.add(link)
            return bool(self.open_links)

    def end(self, link: str) -> None:
        """The node at the other end of this link sends nothing more."""
        with self._end_lock:
            last = self.open_links == {link}
            self.open_links.discard(link)
        if last:
            self.drained()

    def finish(self) -> None:
        """Everything is out: tell the stations downstream."""
        with self._end_lock:
            if self.finished.is_set():
                return
            self.finished.set()
        self.tally.unmatched += self.join.unmatched + self.join.left()
        for outlet in self.outlets:
            outlet.station.end(self.name)
        self.course.ended(self)

    def wait_for_room(self, lacks: Callable[[], bool], full: Full, *, inside: bool = False) -> bool:
        """Hold the caller, who has the lock, until there is room; False: it is not to wait, or the run is over.

        ``inside``: its message has a place in here already, and is counted with those.
        """
        if full == "crowd" or not lacks():
            return True
        if full == "refuse":
            return False
        self.at_door += not inside
        while lacks():
            if self.course.over.is_set():
                return False
            self.changed.wait(0.1)
        self.at_door -= not inside
        return True

    @property
    def unfinished(self) -> int:
        """How many messages came, and are neither through nor given up: those that wait for a partner too."""
        return 0 if self.finished.is_set() else self.in_hand + self.at_door + self.join.left()

    def report(self) -> NodeReport:
        """What the node did so far."""
        with self.lock:
            unfinished = self.unfinished
            queue = self.node.queue or "" if self.node.warped else ""
            report = self.tally.report(self.name, self.node.mark, queue)
            unseen = 0 if self.finished.is_set() else self.unseen
            unmatched = 0 if self.finished.is_set() else self.join.unmatched
        return replace(
            report,
            received=report.received + unseen,
            unfinished=unfinished,
            unmatched=report.unmatched + unmatched,
        )

    def received(self, message: Message) -> None:
        """Note that a message came in."""
        self.tally.received += 1
        folder = self.course.folder
        if folder is not None and folder.telemetry:
            folder.record("rx", self.name, message, message.id)

    def joined(self, link: str, message: Message) -> Iterable[Message]:
        """Put a message into the join; return the inputs that are complete now. One that cannot be joined is given up.

        Its dead letter says by which link it came: a replay puts it into the join once more.
        """
        try:
            complete = self.join.put(link, message)
            for one in complete:
                self.course.traces.came(self.name, one)
            return complete
        except Unjoinable as refused:
            error = as_failure(refused.error, self.name, message)
            self.failures.judge(message, error, self.node.retries)
            self.failures.give_up(message, error, -1, link=link)
            self.tally.outcomes[self.failures.fate] += 1
            self.course.left(message)
            return ()

    def printed(self, message: Message, console: Console, error: BaseException | None = None) -> None:
        """Write what the node printed for a message into its folder, if there is one."""
        if self.course.folder is not None:
            outcome = "done" if error is None else error.kind if isinstance(error, NodeError) else "failed"
            self.course.folder.console(self.name, message, console, outcome)

    def roomy(self, count: int) -> bool:
        """Would :meth:`pass_on` of so many outputs wait for nobody?"""
        return all(
            outlet.station.has_room(count) or (outlet.link.full == "drop" and not outlet.station.may_hold_up)
            for outlet in self.outlets
        )

    def pass_on(self, outputs: Sequence[Message], parent: Message, *, crowd: bool = False) -> None:
        """Stamp outputs with this node's name and their parent's origin, and send them as :meth:`hand_on` does."""
        self.hand_on([stamped(output, self.name, parent) for output in outputs], parent, crowd=crowd)

    def hand_on(self, messages: Sequence[Message], parent: Message | None, *, crowd: bool = False) -> None:
        """Send messages down every link, in order; each branch of several has lists and dicts of its own.

        ``crowd``: wait for nobody, :meth:`roomy` said a moment ago that it need not.
        """
        folder = self.course.folder
        followers = self.course.followers if self.outlets else ()
        alone = len(self.outlets) == 1
        for message in messages:
            self.tally.sent += 1
            if folder is not None:
                if folder.telemetry:
                    folder.record("tx", self.name, message, parent.id if parent else message.id)
                if self.node.auto_dump:
                    folder.dump(self.name, message)
            for follower in followers:
                follower.sent(message, parent, len(self.outlets))
            for outlet in self.outlets:
                branch = message if alone else own(message)
                if outlet.link.full == "block":
                    outlet.station.offer(self.name, branch, full="crowd" if crowd else "wait")
                elif not outlet.station.offer(self.name, branch, full="refuse"):
                    self.tally.dropped += 1
                    outlet.station.tally.outcomes["dropped"] += 1
                    self.course.left(message)
