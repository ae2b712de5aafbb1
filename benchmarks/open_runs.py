"""Runs that stay open: they are given one message, and wait for the next until somebody is done with them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.traffic import DEADLINE, IDENTITY
from celerypipe import Message, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import RunCancelled

SLOW = "benchmarks.nodes.Wait"
#: Seconds after which a run that was cancelled counts as hung.
PATIENCE = 20.0


def side_by_side(queue: str, seconds: list[float]) -> Pipeline:
    """A pipeline of one warped node for each of these: so long it takes for a message; 0: a no-op.

    Each is given each message.
    """
    nodes = [
        NodeDefinition(
            name=f"there-{number}",
            type="proc",
            mark=SLOW if each else IDENTITY,
            warped=True,
            warp_configuration={"queue": queue},
            configuration={"seconds": each} if each else {},
        )
        for number, each in enumerate(seconds)
    ]
    return Pipeline(name="scale", nodes=nodes, links=[], deadline=DEADLINE)


@contextmanager
def open_run(url: str, pipeline: Pipeline) -> Iterator[Sequence[Message]]:
    """Begin a run, give each node one message, and cancel it at the end of the block.

    What comes back is found in what the block is given. Raises what the run failed with.
    """
    came: list[Message] = []
    over = threading.Event()
    begun = threading.Event()
    failed: list[BaseException] = []
    runner = Runner(url, on_event=lambda _: None)  # that Redis is far, say

    def messages() -> Iterator[Message]:
        begun.set()
        yield Message(0)
        over.wait()

    def run() -> None:
        try:
            came.extend(runner.stream(pipeline, messages()))
        except RunCancelled:
            pass
        except BaseException as error:  # noqa: BLE001  # it is raised in the thread that waits
            failed.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=run, name="benchmarks-open-run", daemon=True)
    thread.start()
    try:
        begun.wait()
        yield came
    finally:
        runner.cancel()
        over.set()
        thread.join(PATIENCE)
    if failed:
        raise failed[0]
    if thread.is_alive():
        raise RuntimeError("a run that was cancelled did not end")
