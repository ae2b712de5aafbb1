"""One round of a soak: a random graph, run while things break, beside the same graph run here where nothing does."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from celerypipe import Message, Pipeline, Report, Runner
from celerypipe.definition.pipeline import NodeDefinition

#: Retries of each node: what a kill hits more often than that is given up, and counted.
RETRIES = 3


@dataclass(frozen=True, slots=True)
class Round:
    """What came out, and what the report says about what did not."""

    found: Counter[object]
    report: Report

    @property
    def lost(self) -> int:
        """Messages that were given up, and said so, since their process died or no answer came in time."""
        return sum(node.failed.get(kind, 0) for node in self.report.nodes for kind in ("lost", "timeout"))


def random_pipeline(dice: random.Random, queue: str) -> Pipeline:
    """A random graph of nodes that swallow, refuse, pass on or double a message by its number."""
    names = [f"n{number}" for number in range(dice.randint(1, 6))]
    nodes = [_node(dice, name, queue) for name in names]
    links = [(dice.choice(names[:number]), name) for number, name in enumerate(names) if number]
    return Pipeline(name="soak", nodes=nodes, links=links)


def _node(dice: random.Random, name: str, queue: str) -> NodeDefinition:
    doing = {
        "modulus": dice.choice([0, 0, 0, 3]),
        "bad": dice.choice([0, 0, 7]),
        "delay": dice.choice([0, 0.001, 0.005]),
    }
    return NodeDefinition(
        name=name,
        type="proc",
        mark="tests.nodes.remote.Mark",
        configuration={"name": name, **doing},
        on_error="skip",
        retries=RETRIES,
        warped=dice.random() < 0.85,
        warp_configuration={"queue": queue, "window": dice.choice([1, 8, 64, 256]), "backoff": 0.001},
    )


def run(
    runner: Runner, pipeline: Pipeline, count: int, size: int, *, began: Callable[[], object] = lambda: None
) -> Round:
    """Run it on ``count`` numbered messages that carry ``size`` bytes each; ``began`` is called with the first one."""

    def messages() -> Iterator[Message]:
        began()
        for number in range(count):
            yield Message((number, bytes([number % 256]) * size))

    found = Counter((out.creator, out.payload, out.sequence) for out in runner.stream(pipeline, messages()))
    assert runner.report is not None
    return Round(found, runner.report)


def complaint(expected: Round, round_: Round) -> str:
    """Say what is wrong with a round; empty when every message is accounted for."""
    too_many = round_.found - expected.found
    missing = expected.found - round_.found
    if too_many:
        return f"{too_many.total()} messages too many, such as {_brief(too_many)}"
    if missing and not round_.lost:
        return f"{missing.total()} messages are missing and nothing was reported, such as {_brief(missing)}"
    return ""


def _brief(found: Counter[object]) -> str:
    return ", ".join(repr(each)[:120] for each in list(found)[:3])
