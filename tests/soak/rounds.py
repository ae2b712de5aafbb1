"""One round of a soak: a random graph, run while things break, beside the same graph run here where nothing does."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from celerypipe import Message, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.runner.folder.letters import PLACE, DeadLetters
from tests.nodes.soaking import LATE

#: Retries of each node but those that are late: what a kill hits more often than that is given up, and counted.
RETRIES = 3
#: Seconds that a message may take at a node where some take longer, and others wait for these.
TIMEOUT = 0.6 * LATE
#: How a dead letter says that a message was given up for no fault of its own.
LOST = {"WorkerLost", "NodeTimeout", "CircuitOpen"}
#: Places of a dead letter, and of one that holds only what its message was made from, since Redis lost the rest.
LETTER, VAGUE = -1, -2


class Item(NamedTuple):
    """A message that came out of a node, or died there: what it carried, and its array's bytes."""

    node: str
    way: tuple[Hashable, ...]
    array: bytes
    #: Its place behind the node, or LETTER or VAGUE.
    place: int

    def comes_from(self, lost: Item, above: dict[str, str]) -> bool:
        """Could it be what a message that was given up would have become?"""
        node: str | None = self.node
        while node is not None and node != lost.node:
            node = above.get(node)
        return node is not None and self.way[: len(lost.way)] == lost.way


@dataclass(frozen=True, slots=True)
class Round:
    """What came out or was refused, what was given up for no fault of its own, and how often of each kind."""

    found: Counter[Item]
    lost: Counter[Item]
    kinds: Counter[str]
    #: The node before each.
    above: dict[str, str]


def random_pipeline(dice: random.Random, queue: str, count: int) -> Pipeline:
    """A random graph of nodes that swallow, refuse, write into, pass on or double a message by its number."""
    names = [f"n{number}" for number in range(dice.randint(1, 6))]
    nodes = [_node(dice, name, queue, count) for name in names]
    links = [(dice.choice(names[:number]), name) for number, name in enumerate(names) if number]
    return Pipeline(name="soak", nodes=nodes, links=links, folder=Path("soak"))


def _node(dice: random.Random, name: str, queue: str, count: int) -> NodeDefinition:
    copies = dice.random() < 0.3
    doing = {
        "modulus": dice.choice([0, 0, 0, 3]),
        "bad": dice.choice([0, 0, 7]),
        "writes": 1 if copies else dice.choice([0, 0, 0, 11]),
        "delay": dice.choice([0, 0.001, 0.005]),
        "home": os.getpid(),
        **{hard: [dice.randrange(count)] for hard in ("holds", "starts") if dice.random() < 0.25},
    }
    window = dice.choice([8, 64, 256, *[1] * (count <= 1000)])
    late = dice.choice(["", "", "", "sleeps", "deaf"])
    if late:
        doing[late] = [dice.randrange(count)]
    return NodeDefinition(
        name=name,
        type="proc",
        mark=f"tests.nodes.soaking.{'SoakedCopy' if copies else 'Soaked'}",
        configuration={"name": name, **doing},
        on_error="dead_letter",
        retries=0 if late else RETRIES,
        timeout=TIMEOUT if late else None,
        warped=dice.random() < 0.85,
        warp_configuration={
            "queue": queue,
            "window": window,
            "backoff": 0.001,
        },
    )


def run(
    runner: Runner,
    pipeline: Pipeline,
    folder: Path,
    count: int,
    size: int,
    *,
    began: Callable[[], object] = lambda: None,
) -> Round:
    """Run it on ``count`` numbered messages that carry ``size`` bytes each; ``began`` is called with the first one."""

    def messages() -> Iterator[Message]:
        began()
        for number in range(count):
            yield Message((number, np.full(size, number % 256, np.uint8)))

    there = Pipeline(name=pipeline.name, nodes=pipeline.nodes, links=pipeline.links, folder=folder)
    found = Counter(_item(out.creator, out.payload, out.sequence) for out in runner.stream(there, messages()))
    letters, lost, kinds = DeadLetters(folder / PLACE), Counter[Item](), Counter[str]()
    for letter in letters.find().letters:
        item = _item(letter.node, letters.message(letter).payload, VAGUE if letter.starts_at else LETTER)
        if letter.error in LOST or letter.starts_at:
            lost[item] += 1
            kinds[letter.error] += 1
        else:
            found[item] += 1
    return Round(found, lost, kinds, {link.target: link.source for link in pipeline.links})


def _item(node: str, payload: Any, place: int) -> Item:
    number, array, *names = payload
    return Item(node, (number, *names), array.tobytes(), place)


def complaint(expected: Round, round_: Round) -> str:
    """Say what is wrong with a round; empty when every message is accounted for."""
    too_many = round_.found - expected.found
    missing = expected.found - round_.found
    certain = [lost for lost in round_.lost if lost.place == LETTER]
    both = [item for item in round_.found if any(item.comes_from(lost, round_.above) for lost in certain)]
    unsaid = [item for item in missing if not any(item.comes_from(lost, round_.above) for lost in round_.lost)]
    if too_many:
        return f"{too_many.total()} messages too many, such as {_brief(too_many)}"
    if both:
        return f"{len(both)} messages came out and were given up, such as {_brief(both)}"
    if unsaid:
        return f"{len(unsaid)} messages are missing and nothing was reported, such as {_brief(unsaid)}"
    return ""


def _brief(found: Any) -> str:
    return ", ".join(f"{each.node} {each.way} {each.place}" for each in list(found)[:3])
