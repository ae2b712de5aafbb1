"""Every kind of failure comes back as an error of its own, with its cause, soon after it is known."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from celerypipe import (
    CodecError,
    Message,
    NodeError,
    NodeFailed,
    NodeTimeout,
    NoWorker,
    RunCancelled,
    Runner,
    WorkerLost,
)
from celerypipe.errors import RemoteTraceback, UnknownMark
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import StartWorker, launch_worker
from tests.servers.extent import LONG

#: Seconds between knowing and saying; a machine that runs other tests at the same time gets more.
PROMISE = 1.0 if LONG else 6.0
TIMEOUT = 0.5
CONFIG = 'imports = ["tests.nodes.faulty", "tests.nodes.stateful"]\n'


@dataclass
class Fault:
    """What goes wrong, and what is said of it. ``later``: seconds from the last begin of the message until it shows."""

    payload: Any
    error: type[Exception]
    text: str
    kind: str = ""
    cause: type[Exception] | None = None
    cause_text: str = ""
    later: float = 0.0
    node: dict[str, Any] = field(default_factory=dict)


FAULTS = {
    "exception": Fault("raise", NodeFailed, "there: ValueError: raise", "failed", RemoteTraceback, "in update"),
    "setting of one message": Fault("setting", NodeFailed, "there: what it asks for is out of reach", "failed"),
    "refused memory": Fault("refused", NodeFailed, "there: MemoryError", "failed", RemoteTraceback, "in update"),
    "signal": Fault("segfault", WorkerLost, r"died 3 times: killed by SIGSEGV \(process \d+", "lost"),
    "exit": Fault("exit", WorkerLost, r"died 3 times: exit status 3 \(process \d+", "lost"),
    "hard limit": Fault("hang", NodeTimeout, r"0\.5 s exceeded", "timeout", later=TIMEOUT, node={"timeout": TIMEOUT}),
    "refused payload": Fault({"in": object()}, NodeFailed, r"there: .*payload\['in'\]", "codec", CodecError, "payload"),
}


class Timed(Reading):
    """Notes when a run began to read, and when its error came."""

    began = ended = 0.0

    def run(self) -> None:
        self.began = time.monotonic()
        super().run()
        self.ended = time.monotonic()

    def failure(self) -> Exception:
        self.join(50)
        assert self.error is not None
        return self.error

    def assert_soon(self, known: float) -> None:
        print(f"the error came {self.ended - known:.2f} s after it was known")
        assert 0 <= self.ended - known < PROMISE


@pytest.mark.parametrize("name", FAULTS)
def test_what_goes_wrong_on_a_message_is_typed_and_said_soon(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path, name: str
) -> None:
    fault, diary = FAULTS[name], tmp_path / "diary"
    worker = shared_worker("fkinds", pool="prefork", concurrency=2, config=CONFIG)
    pipeline = warped("tests.nodes.faulty.Noted", "fkinds", configuration={"diary": str(diary)}, **fault.node)
    reading = Timed(Runner(redis_url).stream(pipeline, map(Message, ("well", fault.payload, "after"))))
    error = reading.failure()
    assert type(error) is fault.error
    assert isinstance(error, NodeError)
    assert (error.kind, error.node) == (fault.kind, "there")
    assert error.report["there"].failed == {fault.kind: 1}
    assert error.report["there"].received >= 2
    assert [message.payload for message in reading.out] in ([], ["well"])
    with pytest.raises(fault.error, match=fault.text):
        raise error
    assert type(error.__cause__) is (fault.cause or type(None))
    assert fault.cause_text in str(error.__cause__)
    begun = [line.split() for line in diary.read_text().splitlines()] if diary.exists() else []
    mine = [float(at) for at, payload in begun if payload == str(fault.payload)]
    reading.assert_soon((mine[-1] if mine else reading.began) + fault.later)
    assert not mine or worker.presence["host"] in str(error) + error.worker


def unknown(url: str, worker: Any) -> tuple[Timed, float]:
    return Timed(Runner(url).stream(warped("tests.nodes.faulty.Nobody", "fkinds"), [Message(1)])), time.monotonic()


def unknown_later(url: str, worker: Any) -> tuple[Timed, float]:
    """No worker serves its queue when the run begins; the first one that comes does not know the mark."""
    reading = Timed(Runner(url).stream(warped("tests.nodes.faulty.Nobody", "flater"), [Message(1)]))
    late = launch_worker("flater", url=url, pool="solo", config=CONFIG)
    known = time.monotonic()
    try:
        reading.failure()
    finally:
        late.kill()
    return reading, min(known, reading.ended)


def nobody(url: str, worker: Any) -> tuple[Timed, float]:
    pipeline = warped("tests.nodes.faulty.Dies", "fnobody", limits={"on_no_worker": "fail"})
    return Timed(Runner(url).stream(pipeline, [Message(1)])), time.monotonic()


def cancelled(url: str, worker: Any) -> tuple[Timed, float]:
    runner = Runner(url)
    reading = _going(runner, warped("tests.nodes.faulty.Dies", "fkinds"))
    known = time.monotonic()
    runner.cancel()
    return reading, known


def lost(url: str, worker: Any) -> tuple[Timed, float]:
    """The process of a pinned node, which no other can stand in for."""
    pipeline = warped("tests.nodes.stateful.Forgetful", "fkinds", limits={"pinned": True})
    reading = _going(Runner(url), pipeline)
    known = time.monotonic()
    os.kill(reading.out[-1].meta["pid"], signal.SIGKILL)
    return reading, known


def _going(runner: Runner, pipeline: Any) -> Timed:
    reading = Timed(runner.stream(pipeline, map(Message, range(1_000_000))))
    reading.wait_for(5)
    return reading


@pytest.mark.parametrize(
    ("harm", "error", "kind", "text"),
    [
        (unknown, UnknownMark, None, "tests.nodes.faulty.Nobody"),
        (unknown_later, UnknownMark, None, "tests.nodes.faulty.Nobody"),
        (nobody, NoWorker, "no_worker", "fnobody"),
        (cancelled, RunCancelled, None, ""),
        (
            lost,
            WorkerLost,
            "lost",
            "there: the process that kept its state is gone: killed by SIGKILL",
            # For want of memory, as it seems, if a test beside this one runs out of it.
        ),
    ],
)
def test_what_ends_a_run_is_typed_and_said_soon(
    shared_worker: StartWorker,
    redis_url: str,
    harm: Callable[[str, Any], tuple[Timed, float]],
    error: type[Exception],
    kind: str | None,
    text: str,
) -> None:
    worker = shared_worker("fkinds", pool="prefork", concurrency=2, config=CONFIG)
    reading, known = harm(redis_url, worker)
    found = reading.failure()
    assert type(found) is error
    assert getattr(found, "kind", None) == kind
    assert text in str(found)
    reading.assert_soon(known)
