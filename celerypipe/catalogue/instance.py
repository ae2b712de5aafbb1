"""A warm node: made, configured and warmed up once, then handed one message after another. Both wings use it."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.refused_write import CURE, CURE_OF_MESSAGE, cure_of
from celerypipe.catalogue.text import OURS
from celerypipe.contract.contract import Node, Proc, Sink, one_each
from celerypipe.errors import CelerypipeError, ConfigError, NodeFailed
from celerypipe.message.message import Message
from celerypipe.message.ownership import as_sent, read_only, writable
from celerypipe.process import forks

#: Characters of an exception's text, and of a whole traceback, that are passed on: the rest is for nobody to read.
LONGEST_TEXT, LONGEST_TRACE = 8 * 1024, 32 * 1024


class Instance:
    """One node object and its life. It is lent to one user at a time."""

    def __init__(
        self, listing: Listing, configuration: Mapping[str, Any] | None, *, name: str = "", folder: Path | None = None
    ) -> None:
        self.listing = listing
        #: None: a function that is called, with its arguments in each message.
        self.configuration = dict(configuration) if configuration is not None else None
        self.name = name
        self.folder = folder
        #: Where a sink notes what it wrote, see :attr:`celerypipe.contract.contract.Sink.record`.
        self.record: Path | None = None
        self.node: Node | None = None
        #: Mean seconds a message takes, or None before the first one; kept by who hands messages over.
        self.mean: float | None = None
        #: What was changed while its run goes on, in that order: properties, each with a value.
        self.changes: list[tuple[str, Any]] = []
        #: It hands on what it gets.
        self.suspended = False
        #: The run and node that changed it, which it serves alone; empty: nobody did. So many orders were looked at.
        self.private = ""
        self.obeyed = 0
        #: What a stateful node remembers right after ``warmup``, as bytes; kept by who serves it.
        self.initial: bytes | None = None

    def warm(self) -> Node:
        """Make the node, configure it and warm it up; at once when that was done before.

        Raises :class:`ConfigError` for wrong arguments, :class:`NodeFailed` for a failing ``configure`` or ``warmup``.
        """
        if self.node is not None:
            return self.node
        give = writable if self.listing.node.writable else read_only
        node = self.listing.create(give(self.configuration), name=self.name, folder=self.folder)
        if isinstance(node, Sink):
            node.record = self.record
        for moment in (node.configure, node.warmup):
            try:
                with forks.one_process(f"{self.name or self.listing.mark}: {moment.__name__}()"):
                    moment()
            except ConfigError as error:  # a setting is wrong, and the node says which
                _let_go(node)
                raise ConfigError(f"{self.name or self.listing.mark}: {error}") from None
            except Exception as error:  # whatever user code raises becomes our typed failure, cause attached
                _let_go(node)
                raise NodeFailed(
                    f"{self.name or self.listing.mark}: {moment.__name__}() failed: {brief(error)}",
                    node=self.name,
                    remote_traceback=trace(error),
                ) from error
        for name, value in self.changes:
            self._set(node, name, value)
        self.node = node
        return node

    def change(self, name: str, value: Any) -> None:
        """Change one property, between two messages. :class:`NodeFailed`: it cannot, and stays as it is."""
        if self.listing.node.set_on_config is Node.set_on_config:
            raise NodeFailed(
                f"{self.listing.mark} has no set_on_config(prop, value), by which a node takes a change; add it, or "
                "start the run again with --set",
                node=self.name,
            )
        if self.node is not None:
            self._set(self.node, name, value)
        self.changes.append((name, value))

    def _set(self, node: Node, name: str, value: Any) -> None:
        try:
            with forks.one_process(f"{self.name or self.listing.mark}: set_on_config()"):
                node.set_on_config(name, writable(value))
        except Exception as error:  # whatever user code raises becomes our typed failure, cause attached
            raise NodeFailed(
                f"set_on_config({name!r}) failed: {brief(error)}", node=self.name, remote_traceback=trace(error)
            ) from error

    def follow(self, other: Instance) -> None:
        """Take the place of another one, with all that was changed there."""
        self.changes, self.suspended = list(other.changes), other.suspended
        self.private, self.obeyed = other.private, other.obeyed

    def update(self, message: Message) -> list[Message]:
        """Hand one message over and return all that comes out, in order; a generator is run to its end here."""
        node, before = self.node, forks.generation
        if self.suspended:
            return [message] if isinstance(node, Proc) else []
        try:
            if isinstance(node, Proc):
                return as_messages(node.update(self.given(message)), self.name or self.listing.mark)
            if isinstance(node, Sink):
                node.update(self.given(message))
                return []
        except Exception as error:
            self.advise(error)
            raise
        finally:
            if forks.generation != before:
                forks.end(f"{self.name or self.listing.mark}: update()")
        raise _no_receiver(self.listing)

    def update_once(self, message: Message, key: str) -> None:
        """Hand a message over to a sink in a run that can be resumed."""
        node = self.node
        assert isinstance(node, Sink)  # noqa: S101  # whoever has a key looked
        if self.suspended:
            return
        with forks.one_process(f"{self.name or self.listing.mark}: update()"):
            try:
                node.update_once(self.given(message), key)
            except Exception as error:
                self.advise(error)
                raise

    def given(self, message: Message) -> Message:
        """Return a message as the node gets it: one that says it writes has all of it for itself."""
        return writable(message) if self.listing.node.writable else message

    def advise(self, error: Exception) -> None:
        """Add to an error of the node how it is mended, if that is known."""
        if cure := cure_of(error, writable=self.listing.node.writable):
            error.add_note(cure)

    def destroy(self) -> None:
        """Let go of the node; what its ``destroy`` raises is logged, since nothing waits for it any more."""
        node, self.node = self.node, None
        if node is not None:
            _let_go(node)


def _no_receiver(listing: Listing) -> ConfigError:
    return ConfigError(f"{listing.mark} is a {listing.type}; only a proc or a sink receives messages")


def _let_go(node: Node) -> None:
    try:
        with forks.one_process(f"{node.name}: destroy()"):
            node.destroy()
    except Exception:  # the node is leaving either way
        node.logger.exception("destroy() failed")


def as_messages(output: Any, name: str) -> list[Message]:
    """Return what ``update`` returned as a list; anything that is no message is a :class:`NodeFailed`."""
    if output is None:
        return []
    if isinstance(output, Message):
        return [output]
    if isinstance(output, Iterable) and not isinstance(output, (str, bytes, Mapping)):
        # A generator may change what it has sent already before all of it is out.
        lasts = isinstance(output, list | tuple)
        messages: list[Message] = []
        for number, item in enumerate(output):
            if not isinstance(item, Message):
                raise NodeFailed(
                    f"{name}: output {number} is a {type(item).__name__}, not a Message; "
                    "return message.with_payload(...)",
                    node=name,
                )
            messages.append(item if lasts else as_sent(item))
        return messages
    raise NodeFailed(
        f"{name}: update() returned a {type(output).__name__}, not a Message; return None, a Message "
        "(message.with_payload(...)) or an iterable of them",
        node=name,
    )


def brief(error: BaseException) -> str:
    """Say an exception by its type, the beginning of its text and our advice; our own errors speak for themselves."""
    try:
        text = _cut(str(error))
    except Exception:  # noqa: BLE001  # user code, which must not take the activation with it
        text = "its text cannot be had, for its __str__ failed"
    if isinstance(error, CelerypipeError):
        return text
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    cures = [note for note in getattr(error, "__notes__", ()) if note in (CURE, CURE_OF_MESSAGE)]
    return "; ".join([said, *cures[:1]])


def trace(error: BaseException) -> str:
    """The traceback as text, without celerypipe's own frames at its top; nothing for an error of our own.

    Of a long one the end is left, which has the innermost frames.
    """
    if isinstance(error, CelerypipeError):
        return trace(error.__cause__) if error.__cause__ is not None else ""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_next is not None and _is_ours(frames):
        frames = frames.tb_next
    parts = [f"{_cut(part.rstrip())}\n" for part in traceback.format_exception(type(error), error, frames)]
    left = LONGEST_TRACE
    for index in reversed(range(len(parts))):
        left -= len(parts[index])
        if left < 0:
            return f"({index + 1} parts of this traceback are left out)\n" + "".join(parts[index + 1 :])
    return "".join(parts)


def _cut(text: str) -> str:
    return (
        text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text) - LONGEST_TEXT:,} more characters)"
    )


def _is_ours(frames: TracebackType) -> bool:
    """Is this a frame of celerypipe? Those of its built-in nodes are shown, as those of other nodes are."""
    module = f"{frames.tb_frame.f_globals.get('__name__')}."  # where files lie says nothing of whose they are
    return module.startswith(f"{OURS}.") and not module.startswith(f"{OURS}.nodes.")


#: What came out for one message of a batch, or why nothing did.
Produced = list[Message] | Exception


def update_batch(instance: Instance, messages: Sequence[Message]) -> list[Produced]:
    """Hand several messages over at once; return what came out for each, in their order.

    What ``update_batch`` itself raises is raised: nobody knows then which of them was to blame. A wrong number of
    outputs is the failure of all, since running them once more, one by one, would not make the node right.
    """
    node, name = instance.node, instance.name or instance.listing.mark
    if not isinstance(node, Proc | Sink):
        raise _no_receiver(instance.listing)
    if instance.suspended:
        return [[message] if isinstance(node, Proc) else [] for message in messages]
    with forks.one_process(f"{name}: update_batch()"):
        try:
            outputs = node.update_batch([instance.given(message) for message in messages])
        except Exception as error:
            instance.advise(error)
            raise
        if isinstance(node, Sink):
            return [[] for _ in messages]
        try:
            outputs = one_each(outputs, len(messages), name)
        except NodeFailed as error:
            return [error for _ in messages]
        return [_outcome(output, name, instance) for output in outputs]


def _outcome(output: object, name: str, instance: Instance) -> Produced:
    try:
        return as_messages(output, name)
    except Exception as error:  # noqa: BLE001  # what a generator raises is the failure of its own message
        instance.advise(error)
        return error
