"""Messages through pipelines of warped nodes: one at a time, after a pause, in flight."""

from __future__ import annotations

import queue
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.loads import same
from benchmarks.yardsticks import settled
from celerypipe import Message, Pipeline, Runner
from celerypipe.definition.pipeline import Link, NodeDefinition

ONCE, FLIGHT = "one at a time, p50", "in flight"
#: The no-op: it sends on what it receives.
IDENTITY = "passthrough_identity"
#: Seconds after which a run that hangs is ended.
DEADLINE = 120.0


def in_a_row(queue_name: str, count: int = 1, **node: Any) -> Pipeline:
    """A pipeline of so many equal warped nodes on one queue, see :func:`chain`."""
    return chain([queue_name] * count, **node)


def chain(
    queues: Sequence[str],
    *,
    mark: str = IDENTITY,
    warp: Mapping[str, Any] | None = None,
    cache: bool = False,
    **configuration: Any,
) -> Pipeline:
    """A pipeline of warped nodes, one after the other, alike but for their queues. Raises :class:`DefinitionError`."""
    nodes = [
        NodeDefinition(
            name=f"there-{number}",
            type="proc",
            mark=mark,
            warped=True,
            warp_configuration={"queue": queue_name, **(warp or {})},
            configuration=configuration,
            cache=cache,
        )
        for number, queue_name in enumerate(queues)
    ]
    links = [Link(source=first.name, target=second.name) for first, second in pairwise(nodes)]
    return Pipeline(name="bench", nodes=nodes, links=links, deadline=DEADLINE)


def one_at_a_time(runner: Runner, pipeline: Pipeline, payload: Any, count: int, pause: float = 0.0) -> float:
    """Median seconds of a message, the next one sent when it is back and ``pause`` is over."""
    turn: queue.SimpleQueue[bool] = queue.SimpleQueue()
    sent: list[float] = []

    def messages() -> Iterator[Message]:
        for _ in range(count):
            turn.get()
            time.sleep(pause)
            sent.append(time.perf_counter())
            yield Message(payload)

    times = []
    last = None
    turn.put(True)
    for message in runner.stream(pipeline, messages()):
        times.append(time.perf_counter() - sent[-1])
        last = message
        turn.put(True)
    _check(payload, last, len(times), count)
    return statistics.median(settled(times))


def in_flight(
    runner: Runner, pipeline: Pipeline, payload: Any, count: int, skip: int = 1, *, wanted: Any = None
) -> float:
    """Messages a second when the window is always full, counted after the first ``skip`` results.

    ``wanted``: what comes back, if that is not the payload.
    """
    got, last = 0, None
    start = time.perf_counter()
    for message in runner.stream(pipeline, (Message(payload) for _ in range(count))):
        got, last = got + 1, message
        if got == skip:
            start = time.perf_counter()
    spent = time.perf_counter() - start
    _check(payload if wanted is None else wanted, last, got, count)
    return (got - skip) / spent


def steady(runner: Runner, pipeline: Pipeline, payload: Any, count: int, window: int) -> float:
    """Messages a second with so many on their way, ``count`` of them: filling and emptying are not counted.

    For large payloads, of which one run sees few: its beginning would be most of it.
    """
    permits: queue.SimpleQueue[None] = queue.SimpleQueue()
    for _ in range(window):
        permits.put(None)
    total = count + 2 * window

    def messages() -> Iterator[Message]:
        for _ in range(total):
            permits.get()
            yield Message(payload)

    got, last = 0, None
    start = stop = time.perf_counter()
    for message in runner.stream(pipeline, messages()):
        got, last = got + 1, message
        if got == window:
            start = time.perf_counter()
        elif got == window + count:
            stop = time.perf_counter()
        permits.put(None)
    _check(payload, last, got, total)
    return count / (stop - start)


def _check(wanted: Any, last: Message | None, got: int, count: int) -> None:
    """Refuse a figure of a path that loses or breaks messages: it would look fast."""
    if got != count:
        raise RuntimeError(f"{got} of {count} messages came back")
    if last is None or not same(wanted, last.payload):
        raise RuntimeError("the last message did not come back as it should")
