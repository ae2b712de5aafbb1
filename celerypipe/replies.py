"""The reply stream of a run, read by one thread: results and failures find their way back to their warps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import redis

from celerypipe import blob, codec, keys
from celerypipe.connection import CALL_TIMEOUT, Broken, Client, Command, connect
from celerypipe.errors import CodecError, ConfigError, NodeError, NodeFailed, NodeTimeout, RemoteTraceback, WorkerLost
from celerypipe.mailbox import FAILURE, LOST_BLOB, Published, Reply, as_published
from celerypipe.station import Course
from celerypipe.warp import Flight, Warp

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
    """Reads replies and hands them out; ``garbage`` collects blobs nobody needs, ``again`` sends a message anew.

    ``heard`` is told the name of each activation that answered. ``gathering``: what is sent within it leaves together.
    """

    def __init__(
        self,
        course: Course,
        url: str,
        warps: Mapping[str, Warp],
        garbage: deque[str],
        *,
        again: Callable[[Warp, Flight], None],
        heard: Callable[[str], None],
        gathering: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.course = course
        self.warps = warps
        self.closing = False
        self._garbage = garbage
        self._again = again
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
                        last = item[0]
                        if published := as_published(item):
                            self._take_all(published)
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
        if self._garbage:
            names = [self._garbage.popleft() for _ in range(len(self._garbage))]
            commands.append(("UNLINK", *(key for name in names for key in blob.names(run, name))))
        block = int(READ_BLOCK * 1000)
        commands.append(("XREAD", "COUNT", READ_MOST, "BLOCK", block, "STREAMS", keys.reply(run), last))
        answers = self._client.together(*commands)
        for answer in answers:
            if isinstance(answer, redis.ResponseError):
                raise answer
        return answers[-1][0][1] if answers[-1] else ()

    def _take_all(self, published: Published) -> None:
        warp = self.warps.get(published.node)
        if warp is None:
            return
        warp.answered_at = time.monotonic()
        self._heard(published.worker)
        for result in published.results:
            self._take(warp, result, published.worker)
        warp.hand_over()

    def _take(self, warp: Warp, reply: Reply, worker: str) -> None:
        flight = warp.flights.get(reply.sequence)
        if flight is None or flight.attempt != reply.attempt:
            if reply.blob:
                self._garbage.append(reply.blob)
            return
        if reply.kind == LOST_BLOB:
            self._again(warp, flight)
            return
        if reply.kind == FAILURE:
            warp.failed(flight, self._error(warp, flight, reply, worker))
            return
        data = reply.data
        if reply.blob:
            found = blob.get(self._client, self.course.run_id, reply.blob)
            if found is None:
                self._again(warp, flight)  # its result is gone: make it again
                return
            data = found
            self._garbage.append(reply.blob)
        try:
            outputs = codec.decode(data)
        except CodecError as error:
            warp.failed(flight, NodeFailed(f"{warp.name}: its result cannot be read: {error}", node=warp.name))
            return
        warp.tally.bytes += len(data)
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
