"""How several links in become one input: the policies behind ``sync``.

============================  =====================================================================================
``passthrough``               every message by itself, as it comes (the default, juturna's too)
``local``                     the node decides: ``next_batch(sources)`` gets ``{link: [messages]}`` and returns
                              ``{link: [indices]}`` of what to hand over now (juturna's contract)
``zip``                       one of each link, in order
``latest``                    the newest of each link, whenever one arrives, once there is one of each
``key:<meta field>``          one of each link with the same value in that meta field; the oldest goes without a
                              partner where too many values wait, or too many messages of one link with one value
``within:<seconds>``          one of each link whose times lie at most so far apart; a message's time is its
                              payload's ``timestamp`` or ``start``, else ``created_at``; links must be in time order
============================  =====================================================================================

What belongs together arrives as one message whose payload is a :class:`~celerypipe.Batch`, in the order of the links,
and whose meta is all of theirs.
"""

from __future__ import annotations

import operator
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from keyword import iskeyword
from typing import Any

from celerypipe.errors import NodeFailed
from celerypipe.message.message import Message
from celerypipe.message.ownership import own
from celerypipe.message.payload import Batch
from celerypipe.runner.folder.descent import Descent

NextBatch = Callable[[dict[str, list[Message]]], dict[str, list[int]]]
#: Those who follow the messages of a run, as :class:`~celerypipe.runner.stations.course.Course` has them.
Followers = Sequence[Descent[Any]]
#: What ``next_batch`` returns.
WANTED = "return {link: [indices]} of what is handed over now, {} for nothing"


class Unjoinable(Exception):
    """One message cannot be joined, and is left out: ``error`` is what is wrong with it. The others go on."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("a message cannot be joined")
        self.error = error


class Join:
    """Passthrough, and the shape of all the others: messages go in one by one, inputs come out."""

    def __init__(self, name: str, links: Sequence[str], capacity: int, followers: Followers = ()) -> None:
        self.name = name
        self.links = tuple(links)
        self.capacity = capacity
        #: Messages that were given up because no partner came.
        self.unmatched = 0
        self.followers = followers
        self._waiting: dict[str, deque[Message]] = {link: deque() for link in links}

    def put(self, link: str, message: Message) -> Iterable[Message]:
        """Take one message from a link and return the inputs that are complete now.

        Raises :class:`Unjoinable` where it is that message, :class:`NodeFailed` where nothing can be joined any more.
        """
        return (message,)

    def left(self) -> int:
        """How many messages wait for a partner; asked by any thread."""
        return sum(map(len, self._waiting.values()))

    def _one_of_each(self) -> Message:
        return self._together([self._waiting[each].popleft() for each in self.links])

    def _together(self, parts: Sequence[Message]) -> Message:
        message = together(self.name, parts)
        for follower in self.followers:
            follower.joined(message, parts)
        return message

    def _give_up(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.unmatched += 1
            for follower in self.followers:
                follower.unmatched(message)


class Zip(Join):
    """One of each link, in order."""

    def put(self, link: str, message: Message) -> Iterable[Message]:
        mine = self._waiting[link]
        mine.append(message)
        if len(mine) > self.capacity:
            missing = next(other for other in self.links if not self._waiting[other])
            raise NodeFailed(
                f"{self.name}: {len(mine)} messages from {link!r} wait and none came from {missing!r}; "
                "'zip' needs the same number of messages on every link; use 'key:<meta field>' if some are dropped",
                node=self.name,
            )
        if all(self._waiting.values()):
            return (self._one_of_each(),)
        return ()


class Latest(Join):
    """The newest of each link."""

    def __init__(self, name: str, links: Sequence[str], capacity: int, followers: Followers) -> None:
        super().__init__(name, links, capacity, followers)
        self._newest: dict[str, Message] = {}

    def put(self, link: str, message: Message) -> Iterable[Message]:
        self._newest[link] = message
        if len(self._newest) < len(self.links):
            return ()
        # Each is handed over again, with the next one of another link.
        return (own(self._together([self._newest[each] for each in self.links])),)


class Keyed(Join):
    """One of each link with the same value in a meta field.

    The oldest goes where too many wait: of all values, or of one link with the same value.
    """

    def __init__(self, name: str, links: Sequence[str], capacity: int, followers: Followers, field: str) -> None:
        super().__init__(name, links, capacity, followers)
        self.field = field
        self._by_key: OrderedDict[Any, dict[str, deque[Message]]] = OrderedDict()

    def put(self, link: str, message: Message) -> Iterable[Message]:
        try:
            key = message.meta[self.field]
            waiting = self._by_key.setdefault(key, {})
        except (KeyError, TypeError):
            text = self._unusable(link, message)
            raise Unjoinable(NodeFailed(text, node=self.name, message_id=message.id)) from None
        mine = waiting.setdefault(link, deque())
        mine.append(message)
        if len(waiting) == len(self.links):
            parts = [waiting[each].popleft() for each in self.links]
            for each in self.links:
                if not waiting[each]:
                    del waiting[each]
            if not waiting:
                del self._by_key[key]
            return (self._together(parts),)
        if len(self._by_key) > self.capacity:
            _, oldest = self._by_key.popitem(last=False)
            self._give_up(chain.from_iterable(oldest.values()))
        elif len(mine) > self.capacity:
            self._give_up([mine.popleft()])
        return ()

    def _unusable(self, link: str, message: Message) -> str:
        text = f"{self.name}: a message from {link!r} has no usable meta field {self.field!r} to join by"
        if self.field in message.meta:
            kind = type(message.meta[self.field]).__name__
            return f"{text}: a {kind} is no key; put a number, a text or a tuple of those there"
        named = self.field.isidentifier() and not iskeyword(self.field)
        entry = f"{self.field}=..." if named else f"**{{{self.field!r}: ...}}"
        has = ", ".join(map(repr, message.meta)) or "none"
        return f"{text}; it has {has}: add it with message.with_meta({entry})"

    def left(self) -> int:
        return sum(len(messages) for waiting in list(self._by_key.values()) for messages in list(waiting.values()))


class Within(Join):
    """One of each link whose times lie close together; what is too old for any partner is given up."""

    def __init__(self, name: str, links: Sequence[str], capacity: int, followers: Followers, seconds: float) -> None:
        super().__init__(name, links, capacity, followers)
        self.seconds = seconds

    def put(self, link: str, message: Message) -> Iterable[Message]:
        mine = self._waiting[link]
        mine.append(message)
        if len(mine) > self.capacity:
            self._give_up([mine.popleft()])
        ready = []
        while all(self._waiting.values()):
            heads = {each: moment(self._waiting[each][0]) for each in self.links}
            oldest = min(heads, key=heads.__getitem__)
            if max(heads.values()) - heads[oldest] <= self.seconds:
                ready.append(self._one_of_each())
            else:
                self._give_up([self._waiting[oldest].popleft()])
        return ready


class Local(Join):
    """The node's own ``next_batch`` decides."""

    def __init__(
        self, name: str, links: Sequence[str], capacity: int, followers: Followers, next_batch: NextBatch
    ) -> None:
        super().__init__(name, links, capacity, followers)
        self._next_batch = next_batch
        self._sources: dict[str, list[Message]] = {}

    def put(self, link: str, message: Message) -> Iterable[Message]:
        mine = self._sources.setdefault(link, [])
        mine.append(message)
        if len(mine) > self.capacity:
            raise NodeFailed(
                f"{self.name}: next_batch leaves {len(mine)} messages of {link!r} waiting; it must hand them over "
                "or drop them by handing them over and ignoring them",
                node=self.name,
            )
        try:
            taken = self._taken(self._next_batch({each: list(messages) for each, messages in self._sources.items()}))
        except BaseException as error:  # user code, which the message that came last was too much for
            mine.pop()
            raise Unjoinable(error) from error
        chosen = [self._sources[origin][index] for origin, indices in taken.items() for index in indices]
        for origin, indices in taken.items():
            for index in reversed(indices):
                del self._sources[origin][index]
        if len(chosen) <= 1:
            return chosen
        return (self._together(chosen),)

    def _taken(self, found: Any) -> dict[str, list[int]]:
        """What ``next_batch`` wants, if all of that waits: nothing is taken before that is known."""
        if not isinstance(found, Mapping):
            raise TypeError(f"next_batch() returned a {type(found).__name__}; {WANTED}")
        taken: dict[str, list[int]] = {}
        for origin, indices in found.items():
            there = range(len(self._sources.get(origin, ())))
            taken[origin] = sorted({_place(there, index, origin) for index in indices})
        return taken

    def left(self) -> int:
        return sum(map(len, list(self._sources.values())))


def join_of(
    sync: str | None,
    name: str,
    links: Sequence[str],
    capacity: int,
    next_batch: NextBatch | None = None,
    followers: Followers = (),
) -> Join:
    """Return the join that ``sync`` names.

    ``capacity`` bounds what waits on one link; by key, how many keys wait, and what waits on one link with one key.
    """
    policy, _, argument = (sync or ("local" if next_batch else "passthrough")).partition(":")
    if policy == "zip":
        return Zip(name, links, capacity, followers)
    if policy == "latest":
        return Latest(name, links, capacity, followers)
    if policy == "key":
        return Keyed(name, links, capacity, followers, argument)
    if policy == "within":
        return Within(name, links, capacity, followers, float(argument))
    if policy == "local" and next_batch is not None:
        return Local(name, links, capacity, followers, next_batch)
    return Join(name, links, capacity, followers)


def together(name: str, parts: Sequence[Message]) -> Message:
    """Several messages as one, under the name of the node that receives them."""
    first = parts[0]
    meta: dict[str, Any] = {}
    timers: dict[str, float] = {}
    for part in parts:
        meta.update(part.meta)
        timers.update(part.timers)
    return Message(
        Batch(tuple(parts)),
        meta=meta,
        creator=f"{name}_sync",
        timers=timers,
        origin=first.origin,
        sequence=first.sequence,
    )


def moment(message: Message) -> float:
    """The time that ``within`` compares."""
    for field in ("timestamp", "start"):
        value = getattr(message.payload, field, None)
        if isinstance(value, (int, float)) and value >= 0:
            return float(value)
    return message.created_at


def _place(there: range, index: Any, origin: str) -> int:
    """Where a message waits that ``next_batch`` wants; from the end, if that is below zero, as in any list."""
    try:
        return there[operator.index(index)]
    except (IndexError, TypeError):
        text = f"next_batch() wants {index!r} of {origin!r}, where {len(there)} wait; {WANTED}"
        raise LookupError(text) from None
