"""Several nodes of a run on one queue: one activation serves them, and nothing else is different."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from celerypipe import Message, NodeTimeout, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import chain
from tests.servers import StartWorker
from tests.servers.extent import LONG

GRAPHS = 6


def random_pipeline(dice: random.Random, queue: str) -> Pipeline:
    """A random graph of nodes that swallow, refuse, pass on or double a message by its number."""
    names = [f"n{number}" for number in range(dice.randint(2, 8))]
    nodes = [
        NodeDefinition(
            name=name,
            type="proc",
            mark="tests.nodes.remote.Mark",
            configuration={"name": name, "modulus": dice.choice([0, 0, 2, 3]), "bad": dice.choice([0, 0, 0, 7])},
            on_error="skip",
            retries=dice.choice([0, 0, 1]),
            warped=dice.random() < 0.85,
            warp_configuration={"queue": queue, "window": dice.choice([1, 3, 64]), "backoff": 0.001},
        )
        for name in names
    ]
    links = [(dice.choice(names[:number]), name) for number, name in enumerate(names) if number]
    for _ in range(dice.randint(0, 2)):
        one, other = sorted(dice.sample(range(len(names)), 2))
        if (names[one], names[other]) not in links:
            links.append((names[one], names[other]))
    return Pipeline(name="random", nodes=nodes, links=links)


def came_out(runner: Runner, pipeline: Pipeline) -> tuple[Counter[object], list[object]]:
    """What comes out at the ends, and the counters of every node."""
    messages = (Message((number,)) for number in range(40))
    found = Counter((out.creator, out.payload, out.sequence) for out in runner.stream(pipeline, messages))
    assert runner.report is not None
    counted = [(node.name, node.received, node.sent, node.failed, node.retried) for node in runner.report.nodes]
    return found, counted


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("pool", "slots"), [("prefork", 2), *([("solo", 1), ("threads", 3)] if LONG else [])])
def test_random_graphs_give_the_same_results_as_here(
    shared_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    shared_worker(f"t{pool}", pool=pool, concurrency=slots, config=CONFIG)
    dice = random.Random(f"graphs on {pool}")  # noqa: S311  # the same graphs each time
    for _ in range(GRAPHS):
        pipeline = random_pipeline(dice, f"t{pool}")
        assert came_out(Runner(redis_url), pipeline) == came_out(Runner(local=True), pipeline), pipeline.to_dict()


def test_a_chain_on_one_slot_takes_few_tasks(start_worker: StartWorker, redis_url: str) -> None:
    worker = start_worker("few", pool="solo", config=CONFIG)
    stays = {"linger": 5.0}  # through the pauses of a machine that is busy
    pipeline = chain("few", *[("Echo", stays)] * 4)
    for _ in range(3):
        assert [m.payload for m in Runner(redis_url).stream(pipeline, map(Message, range(300)))] == list(range(300))
    assert worker.text().count("received") <= 6  # without neighbours each node would need one for each window


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("prefork", 2)])
def test_equal_nodes_are_warmed_up_once_a_process(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path, pool: str, slots: int
) -> None:
    shared_worker(f"t{pool}", pool=pool, concurrency=slots, config=CONFIG)
    diary = tmp_path / "diary"
    same = {"configuration": {"diary": str(diary)}}
    pipeline = chain(f"t{pool}", "Loads", "Loads", "Loads", n0=same, n1=same, n2=same)
    for _ in range(3):
        assert [m.payload for m in Runner(redis_url).stream(pipeline, map(Message, range(100)))] == list(range(100))
    processes = diary.read_text().splitlines()
    assert len(processes) == len(set(processes)) <= slots


def test_each_node_keeps_its_own_timeout_and_error(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = chain("tsolo", "Echo", "Nap", "Echo", n1={"timeout": 0.3})
    with pytest.raises(NodeTimeout, match=r"n1: 0\.3 s exceeded"):
        list(Runner(redis_url).stream(pipeline, [Message(0.0), Message(20.0), Message(0.0)]))
