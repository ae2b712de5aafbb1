"""The reply stream of a run, read by one thread: results and failures find their way back to their warps."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from celerypipe.codec import Content
from celerypipe.errors import (
    BadSignature,
    CodecError,
    ConfigError,
    NodeError,
    NodeFailed,
    NodeTimeout,
)
from celerypipe.mailbox.blob.blob import plain_size
from celerypipe.mailbox.failure import said_of
from celerypipe.mailbox.fence import unlike
from celerypipe.mailbox.onward import AT_WORK, Step, Steps, unpack
from celerypipe.mailbox.wire import ALTERED, FAILURE, LOST_BLOB, NOTE, REFUSED, RESULT, Published, Reply, as_published
from celerypipe.message.console import console_of
from celerypipe.message.message import Message, stamped
from celerypipe.redis import keys
from celerypipe.redis.connection import CALL_TIMEOUT, Broken, Client, Command, accepted, connect
from celerypipe.redis.signing import Keyring
from celerypipe.runner.carrier.cargo import Cargo
from celerypipe.runner.carrier.failures import error_of, host_and_pid, where
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.flight import Done, Flight, Note
from celerypipe.runner.warp.warp import Warp

#: Seconds a blocking read lasts; the clock ends it, not a count of loops.
READ_BLOCK = 1.0
READ_MOST = 512
#: How often a message is sent again because somebody alters its payload.
ALTERED_MOST = 3


class Context(NamedTuple):
    """What belongs to a result besides: who published it, what it went on to, and the blobs that were fetched."""

    worker: str
    steps: Steps
    fetched: Mapping[str, Content | None]


class Replies:
    """Reads replies and hands them out; ``cargo`` knows where their bytes are.

    ``heard`` is told the name of each activation that answered. ``gathering``: what is sent within it leaves together.
    ``refused`` is told which node's messages, results or what else were refused for their signature, and how many.
    """

    def __init__(
        self,
        course: Course,
        url: str,
        warps: Mapping[str, Warp],
        cargo: Cargo,
        *,
        heard: Callable[[str], None],
        gathering: Callable[[], AbstractContextManager[None]],
        keyring: Keyring | None,
        refused: Callable[[str, str, int], None],
    ) -> None:
        self.course = course
        self.warps = warps
        self.closing = False
        self._cargo = cargo
        self._heard = heard
        self._gathering = gathering
        self._refused = refused
        run = course.run_id
        self.signer_of = None if keyring is None else lambda node: keyring.signer("result", run, node)
        self._client: Client = connect(url, name="celerypipe-reply", timeout=CALL_TIMEOUT + READ_BLOCK)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def loop(self) -> None:
        last = b"0-0"
        while not self.closing:
            try:
                items = self._read(last)
                with self._gathering():
                    for item in items:
                        if published := as_published(item, self.signer_of):
                            self._take_all(published)
                        last = item[0]
            except Broken:
                # The post thread says so and recovers; here it is enough to try again.
                self._client.close()
                time.sleep(0.2)

    def _read(self, last: bytes) -> Sequence[Any]:
        """Delete what was read before, and wait for more, in one round trip."""
        run = self.course.run_id
        commands: list[Command] = []
        if last != b"0-0":
            milliseconds, _, number = last.partition(b"-")
            commands.append(("XTRIM", keys.reply(run), "MINID", b"%b-%d" % (milliseconds, int(number) + 1)))
        commands += self._cargo.blobs.deleting()
        block = int(READ_BLOCK * 1000)
        commands.append(("XREAD", "COUNT", READ_MOST, "BLOCK", block, "STREAMS", keys.reply(run), last))
        answers = accepted(self._client.together(*commands))
        return answers[-1][0][1] if answers[-1] else ()

    def _take_all(self, published: Published) -> None:
        if published.refused:
            self._refused(published.node, "result", published.refused)
        warp = self.warps.get(published.node)
        if warp is None or not published.results:
            return
        warp.answered_at = time.monotonic()
        self._heard(published.worker)
        found = {result.sequence: _flight(warp, result) for result in published.results}
        results: list[tuple[Flight, Reply, Steps]] = []
        for result in published.results:
            flight = found[result.sequence]
            if flight is not None and flight.attempt == result.attempt:
                flight.by = published.worker
                try:
                    results.append((flight, result, unpack(result.onward)))
                except CodecError as error:
                    warp.failed(flight, _unreadable(warp, error))
            else:
                self._let_go(warp, result)
        wanted = [each for _, result, steps in results for each in _with_steps(warp, result, steps)]
        fetched = self._cargo.fetch(self._client, wanted)
        for flight, result, steps in results:
            self._take(warp, flight, result, Context(published.worker, steps, fetched))
        warp.hand_over()

    def _let_go(self, warp: Warp, result: Reply) -> None:
        """Nobody waits for this result: what lies apart of it is garbage."""
        if result.kind == REFUSED and self.signer_of is not None:  # so it is signed, and says what it should
            count, _, what = result.data.decode().partition(" ")
            self._refused(warp.name, what, int(count))
            return
        with contextlib.suppress(CodecError):
            for _, each in _with_steps(warp, result, unpack(result.onward)):
                if each.blob:
                    self._cargo.blobs.hold(each.blob)  # and let it go

    def _take(self, warp: Warp, flight: Flight, reply: Reply, context: Context) -> None:
        if reply.kind == LOST_BLOB:
            if reply.data == ALTERED:
                self._altered(warp, flight)
            else:
                self._cargo.send_again(warp, flight, unseen=True)
            return
        if reply.kind == FAILURE:
            self._failed(warp, flight, self._error(warp, flight.message, reply, reply.waited, context.worker))
            return
        if reply.kind == RESULT and flight.blob is not None and not reply.kept:
            flight.blob.readers -= 1
        try:
            done = self._done(warp, flight.message, reply, context.steps, context)
        except BadSignature:
            if reply.kind == NOTE:
                self._refused(warp.name, "payload", 1)
            else:
                self._altered(warp, flight)
            return
        except CodecError as error:
            warp.failed(flight, _unreadable(warp, error))
            return
        if reply.kind == NOTE:
            if done is not None:
                self._note(warp, flight, done)
        elif done is None:
            self._cargo.send_again(warp, flight, unseen=False)  # its result is gone: make it again
        else:
            warp.returned(flight, done)

    def _altered(self, warp: Warp, flight: Flight) -> None:
        """Somebody altered what lies apart of a message or its result: send it again, but not for ever."""
        self._refused(warp.name, "payload", 1)
        flight.altered += 1
        if flight.altered < ALTERED_MOST:
            self._cargo.send_again(warp, flight, unseen=False)
            return
        text = f"{warp.name}: its payload was altered on its way {flight.altered} times"
        self._failed(warp, flight, NodeFailed(text, node=warp.name, message_id=flight.message.id))

    def _failed(self, warp: Warp, flight: Flight, error: NodeError | ConfigError) -> None:
        """A message failed; one of a stateful node that was answered before ends the run: nobody waits for it."""
        if warp.retained is None or warp.retained.flights.get(flight.sequence) is not flight:
            warp.failed(flight, error)
            return
        text = f"{warp.name}: {unlike(flight.sequence, str(error).removeprefix(f'{warp.name}: '))}"
        failure = NodeFailed(
            text,
            node=warp.name,
            message_id=flight.message.id,
            worker=getattr(error, "worker", ""),
            remote_traceback=getattr(error, "remote_traceback", ""),
        )
        failure.__cause__ = error
        self.course.fail(failure)

    def _done(self, warp: Warp, message: Message, result: Reply | Step, steps: Steps, context: Context) -> Done | None:
        """Return what a node made of a message, and the next ones of what came out; None if its blob is gone."""
        outputs = self._cargo.unload(self._client, warp, message, result, context.fetched)
        if outputs is None:
            return None
        if steps and (warp.onward is None or len(steps) != len(outputs)):
            raise CodecError(f"malformed reply: {len(steps)} messages went on, {len(outputs)} came out")
        waited = result.waited if isinstance(result, Reply) else 0.0
        size = len(result.data) + (plain_size(result.blob, context.fetched.get(result.blob)) if result.blob else 0)
        console = console_of(result.console, where(context.worker)) if result.console else None
        if not steps or warp.onward is None:
            return Done(message, outputs, result.ran, waited, size, console=console, by=context.worker)
        after: list[Done | None] = []
        beyond = 0.0
        for output, step in zip(outputs, steps, strict=True):
            done = self._after(warp.onward, stamped(output, warp.name, message), step, context) if step else None
            after.append(done)
            beyond += done.ran + done.beyond if done is not None else 0.0
        return Done(message, outputs, result.ran, waited, size, after, beyond, console=console, by=context.worker)

    def _after(self, warp: Warp, message: Message, step: Step, context: Context) -> Done | None:
        """What the next node made of a message; None if what it made is gone."""
        if step.kind == AT_WORK:
            host, _ = host_and_pid(context.worker)
            text = f"{warp.name}: {warp.node.timeout} s exceeded (0.0 s waiting on {warp.queue!r}, running on {host})"
            return Done(message, error=NodeTimeout(text, node=warp.name, message_id=message.id))
        if step.kind == FAILURE:
            error = self._error(warp, message, step, 0.0, context.worker)
            return Done(message, error=error, ran=step.ran)
        try:
            return self._done(warp, message, step, step.onward, context)
        except BadSignature:
            raise
        except CodecError as unread:  # the nodes before it are through all the same
            return Done(message, error=_unreadable(warp, unread), ran=step.ran)

    def _note(self, warp: Warp, flight: Flight, done: Done) -> None:
        """Its time is over when that of the node is over which is at work."""
        at_work: Warp | None = warp
        for _ in range(done.last):
            at_work = at_work.onward if at_work is not None else None
        if at_work is not None and at_work is not warp:
            warp.noted(flight, Note(done, at_work.node.timeout))

    def _error(
        self, warp: Warp, message: Message, said: Reply | Step, waited: float, worker: str
    ) -> NodeError | ConfigError:
        try:
            kind, text, remote_traceback, place = said_of(said.data)
            console = console_of(said.console, where(worker))
        except CodecError as unread:
            return _unreadable(warp, unread)
        if kind == "timeout":
            host, _ = host_and_pid(place or worker)
            text += f" ({waited:.1f} s waiting on {warp.queue!r}, {said.ran:.1f} s running on {host})"
        at = where(place or worker)
        error = error_of(warp.name, kind, text, remote_traceback, worker=at, says=f"worker {at}", message_id=message.id)
        if isinstance(error, ConfigError):
            self.course.fail(error)
        else:
            error.console, error.times = console, (waited, said.ran)
        return error


def _flight(warp: Warp, result: Reply) -> Flight | None:
    """The message of a result; if it is none yet, also one that was answered before and is run once more."""
    flight = warp.flights.get(result.sequence)
    if flight is None and result.kind in (LOST_BLOB, FAILURE) and warp.retained is not None:
        flight = warp.retained.flights.get(result.sequence)
        if flight is not None and result.kind == LOST_BLOB:
            flight.done = False
    return flight


def _unreadable(warp: Warp, error: CodecError) -> NodeFailed:
    return NodeFailed(f"{warp.name}: its result cannot be read: {error}", node=warp.name)


def _with_steps(warp: Warp | None, result: Reply | Step, steps: Steps) -> Iterator[tuple[Warp, Reply | Step]]:
    """A result, and those of the nodes after it."""
    if warp is None:
        return
    yield warp, result
    for step in steps:
        if step is not None:
            yield from _with_steps(warp.onward, step, step.onward)
