"""The reply stream of a run, read by one thread: results and failures find their way back to their warps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from celerypipe import blob, codec, keys
from celerypipe.connection import CALL_TIMEOUT, Broken, Client, connect
from celerypipe.errors import CodecError, ConfigError, NodeError, NodeFailed, NodeTimeout, RemoteTraceback, WorkerLost
from celerypipe.mailbox import FAILURE, LOST_BLOB, Reply, as_reply
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

    ``heard`` is told the name of each activation that answered.
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
    ) -> None:
        self.course = course
        self.warps = warps
        self.closing = False
        self._garbage = garbage
        self._again = again
        self._heard = heard
        self._client: Client = connect(url, name="celerypipe-reply", timeout=CALL_TIMEOUT + READ_BLOCK)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def loop(self) -> None:
        last = "0-0"
        while not self.closing:
            try:
                for reply_id, reply in self._replies(last):
                    if reply is not None and reply.node in self.warps:
                        self._take(self.warps[reply.node], reply)
                    last = reply_id
            except Broken:
                # The post thread says so and recovers; here it is enough to try again.
                self._client.close()
                time.sleep(0.2)

    def _replies(self, last: str) -> list[tuple[str, Reply | None]]:
        """Delete what was read before, and wait for more, in one round trip."""
        run = self.course.run_id
        block = int(READ_BLOCK * 1000)
        together = self._client.pipeline(transaction=False)
        if last != "0-0":
            milliseconds, _, number = last.partition("-")
            together.xtrim(keys.reply(run), minid=f"{milliseconds}-{int(number) + 1}", approximate=False)
        garbage = [self._garbage.popleft() for _ in range(len(self._garbage))]
        blob.delete(together, run, garbage)
        together.xread({keys.reply(run): last}, count=READ_MOST, block=block)
        answer = together.execute()[-1]
        return [(item[0].decode(), as_reply(item)) for item in (answer[0][1] if answer else ())]

    def _take(self, warp: Warp, reply: Reply) -> None:
        flight = warp.flights.get(reply.sequence)
        warp.answered_at = time.monotonic()
        self._heard(reply.worker)
        if flight is None or flight.attempt != reply.attempt:
            if reply.blob:
                self._garbage.append(reply.blob)
            return
        if reply.kind == LOST_BLOB:
            self._again(warp, flight)
            return
        if reply.kind == FAILURE:
            warp.failed(flight, self._error(warp, flight, reply))
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

    def _error(self, warp: Warp, flight: Flight, reply: Reply) -> BaseException:
        failure = codec.decode_value(reply.data)
        kind, text = failure["kind"], failure["text"]
        host, pid, *_ = [*reply.worker.rsplit(".", 3), "", ""]
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
