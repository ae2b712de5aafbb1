"""The contract of a node: Source, Proc, Sink; ``@node`` is in :mod:`celerypipe.contract.function`.

A node's life: ``__init__`` (its arguments are its configuration) → ``configure`` (outside resources) → ``warmup``
(load once, before the first message) → ``messages`` or ``update`` → ``destroy`` (let go).
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from celerypipe.contract.positions import Position
from celerypipe.contract.reach import ANYWHERE, Reach
from celerypipe.errors import NodeFailed
from celerypipe.message.message import Message

#: A dotted path, or the short name of a built-in, an installed or a plugin node.
MARK = re.compile(r"[^\W\d][\w-]*(\.[^\W\d]\w*)*")

#: The methods of nodes that are called.
CALLED = (
    *("configure", "warmup", "destroy", "set_on_config", "snapshot", "restore", "messages", "position", "seek", "stop"),
    *("update", "update_batch", "update_once", "place", "next_batch"),
)

#: What ``Proc.update`` may return: nothing, one message, or any number of them.
Output = Message | Iterable[Message] | None


class Node:
    """The base class of all nodes. Subclass :class:`Source`, :class:`Proc` or :class:`Sink` instead."""

    #: ``source``, ``proc`` or ``sink``.
    type: ClassVar[str] = ""
    #: True for a node that remembers from one message to the next: it gets its messages one at a time, in order. To be
    #: warped it needs ``snapshot`` and ``restore``.
    stateful: ClassVar[bool] = False
    #: True for a node that writes into the arrays it is given: it gets copies of them. Others get them read-only.
    writable: ClassVar[bool] = False
    #: The version of its code; shown by ``celerypipe nodes`` and part of its fingerprint.
    version: ClassVar[str] = ""
    #: Keys of a message's meta that its result depends on; where results are kept, no others are looked at.
    cache_meta: ClassVar[tuple[str, ...]] = ()
    #: When the class was made, in nanoseconds: a file that was written later is not what runs.
    defined_at: ClassVar[int] = 0

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.defined_at = time.time_ns()

    #: The node's name in its pipeline; set by whoever runs it, after ``__init__`` and before ``configure``.
    name: str = ""
    #: The node's own folder in the pipeline's folder, or None when the pipeline has none or the node is warped.
    folder: Path | None = None
    #: The files it may touch where its paths come from elsewhere; a node that opens some asks ``reach.require(path)``.
    reach: Reach = ANYWHERE

    def configure(self) -> None:
        """Called once, first: reserve ports, paths and other outside resources."""

    def warmup(self) -> None:
        """Called once, before the first message: load the model, open the connection."""

    def destroy(self) -> None:
        """Called once, last: let go of everything. Never called while ``update`` runs."""

    def set_on_config(self, prop: str, value: Any) -> None:
        """Called between two messages when ``celerypipe set`` or ``Runner.set`` changes a property of the node.

        What it raises is the answer to who wants the change; then it has to be as it was before.
        """

    def snapshot(self) -> Any:
        """Called between two messages of a stateful node that is warped, about once a second: return what it remembers.

        Anything that can travel in a message: plain values, arrays, payloads. It is encoded before the next message.
        """
        raise NotImplementedError(f"{type(self).__name__} has no snapshot() method")

    def restore(self, state: Any) -> None:
        """Called after ``warmup``, before the next message: remember what a ``snapshot`` returned, and nothing else.

        Called where the node goes on after its process died or let go of it, where an ``update`` was broken off, and
        with what it returned right after ``warmup`` where a warm node begins anew. ``state`` is the node's own: it may
        write into its arrays. The messages since that snapshot are given to ``update`` once more, and what comes out
        then is dropped; so ``update`` must do the same when it is run again, and what it does elsewhere is done again.
        """
        raise NotImplementedError(f"{type(self).__name__} has no restore() method")

    @property
    def logger(self) -> logging.Logger:
        """The node's logger, named after it."""
        return logging.getLogger(f"celerypipe.node.{self.name or type(self).__name__}")


class Source(Node):
    """A node without input: it yields messages until it has no more.

    A source with a ``seek`` of its own can go on in the middle: a run of it that was ended, by ``kill -9`` too, can be
    resumed. It gives the same messages the same ``position`` in every run.
    """

    type = "source"

    def messages(self) -> Iterator[Message]:
        """Yield messages. The runner takes the next one when the pipeline has room for it.

        Where making one may fail (a file may be broken), return :class:`celerypipe.Readings` instead: then the node's
        ``retries`` and ``on_error`` are for that message alone. What a generator raises ends the source, since it
        cannot go on. The run then fails, whatever ``on_error`` says: at once with ``stop``, else once all that was sent
        is out.
        """
        raise NotImplementedError(f"{type(self).__name__} has no messages() method")

    def position(self, message: Message) -> Position | None:
        """Return the position of the message that it just yielded: a number or a text, the same in every run.

        None: it would not be found there again. By default the message's ``version``. A source whose positions are no
        running numbers need not care for ``sequence``; one that counts gives its messages their ``sequence`` itself, so
        that they have the same in a run that leaves some of them out.
        """
        return message.version if message.version >= 0 else None

    def seek(self, through: Container[Position]) -> None:
        """Called after ``warmup`` when a run is resumed: leave out the messages at these positions."""
        raise NotImplementedError(f"{type(self).__name__} has no seek() method")

    def total(self) -> int | None:
        """Return how many messages it will yield, or None if that is unknown: for a progress bar with the time left.

        Called once, after ``warmup`` and ``seek``: messages that are left out do not count. An estimate will do.
        """
        return None

    def stop(self) -> None:
        """Called from another thread when no more messages are wanted: ``messages`` should return soon."""


class Proc(Node):
    """A node that turns messages into messages."""

    type = "proc"

    def update(self, message: Message) -> Output:
        """Return None (no output), a message, or an iterable or generator of messages: 0 to n for each one received.

        A node that has ``update_batch`` alone gets the message as a batch of one.
        """
        if not takes_batches(type(self)):
            raise NotImplementedError(f"{type(self).__name__} has no update() method")
        return one_each(self.update_batch([message]), 1, self.name or type(self).__name__)[0]

    def update_batch(self, messages: list[Message]) -> Sequence[Output]:
        """Return one output per message, in their order, each as ``update`` returns it. Only if it can take several.

        Called with 1 to ``batch.size`` messages where the node is warped. If it raises, each message is given to it
        once more, alone, so that only the one that cannot be worked on fails.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update_batch() method")


class Sink(Node):
    """A node without output."""

    type = "sink"

    #: In a run that can be resumed: a file for notes about what was written. It is there already when this run goes on
    #: from another, and removed once a run is done; None in any other run, and where the sink is warped.
    record: Path | None = None

    def update(self, message: Message) -> None:
        """Process one message; a sink returns nothing."""
        if not takes_batches(type(self)):
            raise NotImplementedError(f"{type(self).__name__} has no update() method")
        self.update_batch([message])

    def update_once(self, message: Message, key: str) -> None:
        """Process one message in a run that can be resumed; by default this calls ``update``.

        A run that goes on from another sends again what was not through, though it may have been written. ``key`` is
        then the same as before: a sink that keeps the key with what it writes, and passes over one that it has, takes
        every message exactly once. It is ``source/position/sending node/sink/number``.
        """
        self.update(message)

    #: Ends the error about a message that would replace another one: how to give each a place of its own.
    tell_apart: ClassVar[str] = "let the sink's place() tell them apart"

    def place(self, message: Message) -> str:
        """Return the path of the file that this message is written to, if it has one of its own; by default none.

        A run gives a place to one message only: a second one would replace the first, so it fails. So does one over
        which this raises. Called before ``update``; for a warped sink by the runner, where its class is known there, of
        a node that is only made.
        """
        return ""

    def update_batch(self, messages: list[Message]) -> None:
        """Take several messages out of the pipeline at once; as :meth:`Proc.update_batch`, but nothing is returned."""
        raise NotImplementedError(f"{type(self).__name__} has no update_batch() method")


def takes_batches(node: type[Node]) -> bool:
    """Has the class an ``update_batch`` of its own?"""
    own = getattr(node, "update_batch", None)
    return own is not None and own not in (Proc.update_batch, Sink.update_batch)


def takes_snapshots(node: type[Node]) -> bool:
    """Has the class both ``snapshot`` and ``restore`` of its own?"""
    return node.snapshot is not Node.snapshot and node.restore is not Node.restore


def one_each(outputs: Any, count: int, name: str) -> Sequence[Output]:
    """Return what ``update_batch`` returned for ``count`` messages; :class:`NodeFailed` if it is not one for each."""
    if isinstance(outputs, Sequence) and not isinstance(outputs, (str, bytes)):
        if len(outputs) == count:
            return outputs
        found = f"{len(outputs)} outputs"
    else:
        found = f"a {type(outputs).__name__}"
    raise NodeFailed(
        f"{name}: update_batch() returned {found} for {count} message{'s' if count > 1 else ''}; return a list with "
        "one output for each, in their order: None, a Message or an iterable of them",
        node=name,
    )


def node_class(value: object) -> type[Node] | None:
    """Return the node class that ``value`` is or stands for (a class, or a function under ``@node``), else None."""
    if inspect.isclass(value) and issubclass(value, Node):
        return value
    made = getattr(value, "__node__", None)
    return made if inspect.isclass(made) and issubclass(made, Node) else None


def means_another(node: type[Node]) -> bool:
    """Does its module hold something else under its name by now? Its mark means that one, here and on workers."""
    found: Any = sys.modules.get(node.__module__)
    for part in node.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is not None and node_class(found) is not node
