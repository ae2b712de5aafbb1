"""The reply stream of a run, read by one thread: results and failures find their way back to their warps."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis

from celerypipe.errors import CodecError, ConfigError, NodeError, NodeFailed
from celerypipe.mailbox.fence import unlike
from celerypipe.mailbox.onward import Step, Steps, unpack
from celerypipe.mailbox.orders import MOST, order_in
from celerypipe.mailbox.wire import FAILURE, LOST_BLOB, REFUSED, RESULT, Published, Reply, as_published
from celerypipe.redis.connection import CALL_TIMEOUT, Broken, Client, Command, OneLine, accepted, connect
from celerypipe.runner.carrier.cargo import Cargo
from celerypipe.runner.carrier.doubts import Doubts
from celerypipe.runner.carrier.holdings import Holdings
from celerypipe.runner.carrier.listener import CarrierListener
from celerypipe.runner.carrier.opening import Altered, Context, Failed, Lost, Unbegun, Verdict, opened, unreadable
from celerypipe.runner.carrier.repair import send_again
from celerypipe.runner.carrier.sender import Sender
from celerypipe.runner.carrier.whereabouts import Whereabouts
from celerypipe.runner.logs.incoming import Incoming
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.flight import Done, Flight, Note
from celerypipe.runner.warp.warp import Warp

#: Seconds a blocking read lasts; the clock ends it, not a count of loops.
READ_BLOCK = 2.0
READ_MOST = 512
#: How often a message is sent again because somebody alters its payload.
ALTERED_MOST = 3


class Replies:
    """Reads replies and hands them out; ``cargo`` knows where their bytes are.

    What that sets off the ``sender`` sends together; ``whereabouts`` hear which activations answered; ``incoming`` gets
    what was logged.
    """

    def __init__(
        self,
        course: Course,
        warps: Mapping[str, Warp],
        cargo: Cargo,
        holdings: Holdings,
        sender: Sender,
        whereabouts: Whereabouts,
        doubts: Doubts,
        incoming: Incoming | None,
        listener: CarrierListener,
    ) -> None:
        self.course = course
        self._incoming = incoming
        self._listener = listener
        self._holdings = holdings
        self._keyring = holdings.keyring
        #: The last orders that came.
        self._heard: deque[str] = deque(maxlen=MOST)
        self.warps = warps
        self._closing = False
        self._trimmed = b"0-0"
        self._cargo = cargo
        self._sender = sender
        self._whereabouts = whereabouts
        self._doubts = doubts
        self._signer_of = holdings.signer_of
        self._client: Client = connect(
            cargo.address, name="celerypipe-reply", timeout=CALL_TIMEOUT + READ_BLOCK, kind=OneLine
        )
        self._stream = self._client.names.reply(course.run_id)
        self._log = self._client.names.log(course.run_id)
        self._asked = self._client.names.asked(course.run_id)
        #: The last entries that were read of the other streams.
        self._lasts = {self._asked: b"0-0", **({self._log: b"0-0"} if incoming is not None else {})}

    def stop(self) -> None:
        """Read no more."""
        self._closing = True

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def loop(self) -> None:
        last = b"0-0"
        while not self._closing:
            try:
                items = self._read(last)
                with self._sender.gathering():
                    for item in items:
                        if published := as_published(item, self._signer_of):
                            self._take_all(published)
                        last = item[0]
            except Broken as error:
                # The post thread says so and recovers; here it is enough to try again.
                if isinstance(error, redis.ResponseError):  # somebody may have put something else there
                    with contextlib.suppress(*Broken):
                        self._holdings.clear(self._client)
                self._client.close()
                time.sleep(0.2)

    def _read(self, last: bytes) -> Sequence[Any]:
        """Delete what was read before, and wait for more, in one round trip."""
        commands: list[Command] = []
        if last != self._trimmed:
            milliseconds, _, number = last.partition(b"-")
            commands.append(("XTRIM", self._stream, "MINID", b"%b-%d" % (milliseconds, int(number) + 1)))
        commands += self._cargo.blobs.deleting()
        block = int(READ_BLOCK * 1000)
        streams = {self._stream: last, **self._lasts}
        commands.append(("XREAD", "COUNT", READ_MOST, "BLOCK", block, "STREAMS", *streams, *streams.values()))
        answers = accepted(self._client.together(*commands))
        self._trimmed = last
        found: dict[str, Sequence[Any]] = {name.decode(): items for name, items in answers[-1] or ()}
        for name in self._lasts.keys() & found.keys():
            self._lasts[name] = found[name][-1][0]
        if self._incoming is not None and (logged := found.get(self._log)):
            self._incoming.take(logged)
        for item in found.get(self._asked, ()):
            self._take_order(item)
        return found.get(self._stream, ())

    def _take_order(self, item: Any) -> None:
        try:
            order = order_in(item, self.course.run_id, self._keyring)
        except CodecError:  # nobody of ours, or with no key of ours
            self._doubts.add("", "order")
            return
        if order.id in self._heard:  # a copy is signed as well as what it was copied from
            self._doubts.add("", "order")
            return
        self._heard.append(order.id)
        self._listener.ordered(order)

    def _take_all(self, published: Published) -> None:
        if published.declined:
            self._doubts.declined(published.declined)
            return
        if published.refused:
            self._doubts.add(published.node, "result", published.refused)
        warp = self.warps.get(published.node)
        if warp is None or not published.results:
            return
        warp.answered_at = time.monotonic()
        if self._incoming is not None:
            self._incoming.told(published.worker, max(each.logged for each in published.results))
        self._whereabouts.heard(published.worker)
        results = self._expected(warp, published)
        wanted = [each for _, result, steps in results for each in _with_steps(warp, result, steps)]
        context = Context(published.worker, self._cargo.fetch(self._client, wanted), self._cargo, self._client)
        for flight, result, steps in results:
            self._take(warp, flight, result, opened(warp, flight.message, result, steps, context))
        self._sender.answered(warp)
        warp.hand_over()

    def _expected(self, warp: Warp, published: Published) -> list[tuple[Flight, Reply, Steps]]:
        """The results that somebody waits for, each with its message and what went on from it."""
        results: list[tuple[Flight, Reply, Steps]] = []
        for result in published.results:
            flight = _flight(warp, result)
            if flight is not None and flight.attempt == result.attempt:
                flight.by = published.worker
                try:
                    results.append((flight, result, unpack(result.onward)))
                except CodecError as error:
                    warp.failed(flight, unreadable(warp, error))
            else:
                self._let_go(warp, result)
        return results

    def _let_go(self, warp: Warp, result: Reply) -> None:
        """Nobody waits for this result: what lies apart of it is garbage."""
        if result.kind == REFUSED and self._signer_of is not None:  # so it is signed, and says what it should
            count, _, what = result.data.decode().partition(" ")
            self._doubts.add(warp.name, what, int(count))
            return
        with contextlib.suppress(CodecError):
            for _, each in _with_steps(warp, result, unpack(result.onward)):
                if each.blob:
                    self._cargo.blobs.hold(each.blob)  # and let it go

    def _take(self, warp: Warp, flight: Flight, reply: Reply, verdict: Verdict) -> None:
        if reply.kind == RESULT and flight.blob is not None and not reply.kept:
            flight.blob.readers -= 1
        match verdict:
            case Done():
                if verdict.onward:
                    self._look_onward(verdict)
                warp.returned(flight, verdict)
            case Note(done):
                self._look_onward(done)
                warp.noted(flight, verdict)
            case Failed(error):
                self._failed(warp, flight, error)
            case Lost(unseen):
                if unseen:
                    self._cargo.unseen(warp, flight)
                send_again(self._cargo, warp, flight)
            case Unbegun(suspect):
                (warp.send_alone if suspect else warp.send_unbegun)(flight)
            case Altered(noted):
                self._doubts.add(warp.name, "payload")
                if not noted:
                    self._altered(warp, flight)

    def _look_onward(self, done: Done) -> None:
        """End the run if a node that the message went on to cannot work at all."""
        for each in filter(None, done.onward):
            if isinstance(each.error, ConfigError):
                self.course.fail(each.error)
            self._look_onward(each)

    def _altered(self, warp: Warp, flight: Flight) -> None:
        """Somebody altered what lies apart of a message or its result: send it again, but not for ever."""
        flight.altered += 1
        if flight.altered < ALTERED_MOST:
            send_again(self._cargo, warp, flight)
            return
        text = f"{warp.name}: its payload was altered on its way {flight.altered} times"
        self._failed(warp, flight, NodeFailed(text, node=warp.name, message_id=flight.message.id))

    def _failed(self, warp: Warp, flight: Flight, error: NodeError | ConfigError) -> None:
        """A message failed; one of a stateful node that was answered before ends the run: nobody waits for it."""
        if isinstance(error, ConfigError):
            self.course.fail(error)
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


def _flight(warp: Warp, result: Reply) -> Flight | None:
    """The message of a result; if it is none yet, also one that was answered before and is run once more."""
    flight = warp.flights.get(result.sequence)
    if flight is None and result.kind in (LOST_BLOB, FAILURE) and warp.retained is not None:
        flight = warp.retained.flights.get(result.sequence)
        if flight is not None and result.kind == LOST_BLOB:
            flight.done = False
    return flight


def _with_steps(warp: Warp | None, result: Reply | Step, steps: Steps) -> Iterator[tuple[Warp, Reply | Step]]:
    """A result, and those of the nodes after it."""
    if warp is None:
        return
    yield warp, result
    for step in steps:
        if step is not None:
            yield from _with_steps(warp.onward, step, step.onward)
