"""A reply, opened: what became of a message, by what its activation says and by the bytes that are there.

Nothing is decided here, and nobody is told: that is for who reads the replies.
"""

from __future__ import annotations

from typing import NamedTuple

from celerypipe.errors import CodecError, ConfigError, NodeError, NodeFailed, NodeTimeout
from celerypipe.mailbox.blob.blob import Contents, Gone
from celerypipe.mailbox.failure import said_of
from celerypipe.mailbox.holder import Holder
from celerypipe.mailbox.onward import AT_WORK, Step, Steps
from celerypipe.mailbox.wire import ALTERED, FAILURE, LOST_BLOB, NOTE, SUSPECT, UNBEGUN, Reply
from celerypipe.message.console import console_of
from celerypipe.message.message import Message, stamped
from celerypipe.redis.connection import Client
from celerypipe.runner.carrier.cargo import Cargo
from celerypipe.runner.carrier.failures import error_of
from celerypipe.runner.warp.flight import Done, Note
from celerypipe.runner.warp.warp import Warp


class Context(NamedTuple):
    """What belongs to all that was published together: who did that, what was fetched for it, and where more is."""

    worker: str
    fetched: Contents
    cargo: Cargo
    client: Client


class Lost(NamedTuple):
    """Bytes are gone: those of the message, which were ``unseen`` by its worker, or those of its result."""

    unseen: bool


class Altered(NamedTuple):
    """What lies apart is not what was signed. ``noted``: it is that of a note, so that a result is still to come."""

    noted: bool


class Failed(NamedTuple):
    """The attempt failed, says its activation; or what that says is malformed."""

    error: NodeError | ConfigError


class Unbegun(NamedTuple):
    """Its activation ends, and gives it back without having begun it; ``suspect``: but in a batch, which was late."""

    suspect: bool


#: What a reply is. A note of which nothing follows is None.
Verdict = Done | Note | Failed | Lost | Altered | Unbegun | None


def opened(warp: Warp, message: Message, reply: Reply, steps: Steps, context: Context) -> Verdict:
    """Return what a reply is; ``steps``: what went on from its message, as far as that is told."""
    kind = reply.kind
    if kind == LOST_BLOB:
        return Altered(noted=False) if reply.data == ALTERED else Lost(unseen=True)
    if kind == UNBEGUN:
        return Unbegun(suspect=reply.data == SUSPECT)
    if kind == FAILURE:
        return Failed(_error(warp, message, reply, reply.waited, context.worker))
    try:
        done = _done(warp, message, reply, steps, context)
    except Gone as gone:
        if gone.altered:
            return Altered(noted=kind == NOTE)
        return Lost(unseen=False) if kind != NOTE else None
    except CodecError as error:
        return Failed(unreadable(warp, error))
    return _note(warp, done) if kind == NOTE else done


def _done(warp: Warp, message: Message, result: Reply | Step, steps: Steps, context: Context) -> Done:
    """Return what a node made of a message, and the next ones of what came out; :class:`Gone` if its blob is."""
    outputs = context.cargo.unload(context.client, warp, message, result, context.fetched)
    if steps and (warp.onward is None or len(steps) != len(outputs)):
        raise CodecError(f"malformed reply: {len(steps)} messages went on, {len(outputs)} came out")
    waited, warmed = (result.waited, result.warmed) if isinstance(result, Reply) else (0.0, 0.0)
    size = len(result.data) + (context.fetched.plain_size(result.blob) if result.blob else 0)
    console = console_of(result.console, Holder.read(context.worker).process.where) if result.console else None
    if not steps or warp.onward is None:
        return Done(message, outputs, result.ran, waited, size, console=console, by=context.worker, warmed=warmed)
    after: list[Done | None] = []
    beyond = 0.0
    for output, step in zip(outputs, steps, strict=True):
        done = _after(warp.onward, stamped(output, warp.name, message), step, context) if step else None
        after.append(done)
        beyond += done.ran + done.beyond if done is not None else 0.0
    times = result.ran, waited, size, after, beyond
    return Done(message, outputs, *times, console=console, by=context.worker, warmed=warmed)


def _after(warp: Warp, message: Message, step: Step, context: Context) -> Done | None:
    """What the next node made of a message; None if what it made is gone."""
    if step.kind == AT_WORK:
        host = Holder.read(context.worker).process.host
        text = f"{warp.name}: {warp.node.timeout} s exceeded (0.0 s waiting on {warp.queue!r}, running on {host})"
        return Done(message, error=NodeTimeout(text, node=warp.name, message_id=message.id))
    if step.kind == FAILURE:
        return Done(message, error=_error(warp, message, step, 0.0, context.worker), ran=step.ran)
    try:
        return _done(warp, message, step, step.onward, context)
    except Gone as gone:
        if gone.altered:
            raise
        return None
    except CodecError as unread:  # the nodes before it are through all the same
        return Done(message, error=unreadable(warp, unread), ran=step.ran)


def _note(warp: Warp, done: Done) -> Note | None:
    """The time of its message is over when that of the node is over which is at work."""
    at_work: Warp | None = warp
    for _ in range(done.last):
        at_work = at_work.onward if at_work is not None else None
    return Note(done, at_work.node.timeout) if at_work is not None and at_work is not warp else None


def _error(warp: Warp, message: Message, said: Reply | Step, waited: float, worker: str) -> NodeError | ConfigError:
    try:
        kind, text, remote_traceback, place = said_of(said.data)
        console = console_of(said.console, Holder.read(worker).process.where)
    except CodecError as unread:
        return unreadable(warp, unread)
    process = Holder.read(place or worker).process
    if kind == "timeout":
        text += f" ({waited:.1f} s waiting on {warp.queue!r}, {said.ran:.1f} s running on {process.host})"
    at = process.where
    error = error_of(warp.name, kind, text, remote_traceback, worker=at, says=f"worker {at}", message_id=message.id)
    if not isinstance(error, ConfigError):
        error.console, error.times = console, (waited, said.ran)
    return error


def unreadable(warp: Warp, error: CodecError) -> NodeFailed:
    """Return the error of a reply that is malformed."""
    return NodeFailed(f"{warp.name}: its result cannot be read: {error}", node=warp.name)
