"""The reply stream of a run, read by one thread: results and failures find their way back to their warps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from celerypipe import codec, keys
from celerypipe.blob import Content, plain_size
from celerypipe.cargo import Cargo
from celerypipe.connection import CALL_TIMEOUT, Broken, Client, Command, accepted, connect
from celerypipe.errors import CodecError, ConfigError, NodeError, NodeFailed, NodeTimeout, RemoteTraceback, WorkerLost
from celerypipe.flight import Flight
from celerypipe.mailbox import FAILURE, LOST_BLOB, Published, Reply, as_published
from celerypipe.station import Course
from celerypipe.warp import Warp

#: Seconds a blocking read lasts; the clock ends it, not a count of loops.
READ_BLOCK = 1.0
READ_MOST = 512

ERRORS: dict[str, type[NodeError]] = {
    "failed": NodeFailed,
    "timeout": NodeTimeout,
    "lost": WorkerLost,
    "codec": NodeFailed,
}


class Replies:
    """Reads replies and hands them out; ``cargo`` knows where their bytes are.

    ``heard`` is told the name of each activation that answered. ``gathering``: what is sent within it leaves together.
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
    ) -> None:
        self.course = course
        self.warps = warps
        self.closing = False
        self._cargo = cargo
        self._heard = heard
        self._gathering = gathering
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
                        if published := as_published(item):
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
        warp = self.warps.get(published.node)
        if warp is None:
            return
        warp.answered_at = time.monotonic()
        self._heard(published.worker)
        found = {result.sequence: warp.flights.get(result.sequence) for result in published.results}
        results = []
        for result in published.results:
            flight = found[result.sequence]
            if flight is not None and flight.attempt == result.attempt:
                results.append((flight, result))
            elif result.blob:
                self._cargo.blobs.hold(result.blob)  # and let it go
        fetched = self._cargo.fetch(self._client, warp, [result for _, result in results])
        for flight, result in results:
            self._take(warp, flight, result, published.worker, fetched)
        warp.hand_over()

    def _take(
        self, warp: Warp, flight: Flight, reply: Reply, worker: str, fetched: Mapping[str, Content | None]
    ) -> None:
        if reply.kind == LOST_BLOB:
            self._cargo.send_again(warp, flight, unseen=True)
            return
        if reply.kind == FAILURE:
            warp.failed(flight, self._error(warp, flight, reply, worker))
            return
        try:
            outputs = self._cargo.unload(self._client, warp, flight, reply, fetched)
        except CodecError as error:
            warp.failed(flight, NodeFailed(f"{warp.name}: its result cannot be read: {error}", node=warp.name))
            return
        if outputs is None:
            self._cargo.send_again(warp, flight, unseen=False)  # its result is gone: make it again
            return
        warp.tally.bytes += len(reply.data) + plain_size(reply.blob, fetched.get(reply.blob))
        warp.returned(flight, outputs, waited=reply.waited, ran=reply.ran)

    def _error(self, warp: Warp, flight: Flight, reply: Reply, worker: str) -> BaseException:
        failure = codec.decode_value(reply.data)
        kind, text = failure["kind"], failure["text"]
        host, pid, *_ = [*worker.rsplit(".", 3), "", ""]
        if kind == "config":
            error = ConfigError(f"pipeline node {warp.name!r}: {text} (says worker {host}, process {pid})")
            self.course.fail(error)
            return error
        if kind == "timeout":
            text += f" ({reply.waited:.1f} s waiting on {warp.queue!r}, {reply.ran:.1f} s running on {host})"
        prefix = "" if text.startswith(f"{warp.name}:") else f"{warp.name}: "
        error_class = ERRORS.get(kind, NodeFailed)
        known = error_class(
            f"{prefix}{text}",
            node=warp.name,
            message_id=flight.message.id,
            worker=f"{host}, process {pid}",
            remote_traceback=failure["traceback"],
        )
        if failure["traceback"]:
            known.__cause__ = RemoteTraceback(failure["traceback"])
        return known
