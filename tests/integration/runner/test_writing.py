"""A node that writes into what it is given, or into what it has sent: the same comes of it here and on a worker."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import Message, NodeDefinition, NodeFailed, Pipeline, Runner
from celerypipe.catalogue.refused_write import CURE
from celerypipe.runner.folder.letters import PLACE, DeadLetters
from tests.nodes.writing import CONFIG, counted, length, raised, raised_copy
from tests.servers import StartWorker

#: Arrays of a size that travels in its message, and of one that lies apart.
SIZES = [3, 40_000]


class Place:
    """Where nodes run: ``here``, ``loop`` (warped ones, in this process) or ``there``."""

    def __init__(self, name: str, redis_url: str) -> None:
        self.name = name
        self.runner = Runner(redis_url, local=name == "loop")

    def node(self, mark: str, **options: Any) -> NodeDefinition:
        """A node of :mod:`tests.nodes.writing`, named after its mark."""
        limits = options.pop("limits", {})
        if self.name != "here":
            options |= {"warped": True, "warp_configuration": {"queue": "writes", "linger": 0.05, **limits}}
        options = {"name": mark, "type": "proc", "retries": 0, **options}
        return NodeDefinition(mark=f"tests.nodes.writing.{mark}", **options)

    def row(self, *marks: str, folder: str | None = None, **options: Any) -> Pipeline:
        """Nodes in a row, each with the same options."""
        nodes = [self.node(mark, name=f"{mark}{number}", **options) for number, mark in enumerate(marks)]
        return Pipeline(name="row", nodes=nodes, links=list(pairwise(n.name for n in nodes)), folder=folder)

    def outputs(self, pipeline: Pipeline, messages: Iterable[Message]) -> list[Message]:
        """All that comes out."""
        return list(self.runner.stream(pipeline, messages))


@pytest.fixture(params=["here", "loop", "there"])
def place(request: pytest.FixtureRequest, redis_url: str, shared_worker: StartWorker) -> Place:
    if request.param == "there":
        shared_worker("writes", pool="solo", config=CONFIG)
    return Place(request.param, redis_url)


def arrays(count: int, size: int = 3) -> Iterator[Message]:
    """Arrays of 0.0, 1.0, …"""
    for number in range(count):
        yield Message(np.full(size, float(number)))


def firsts(messages: Iterable[Message]) -> list[float]:
    """The first number of each."""
    return [float(message.payload[0]) for message in messages]


def test_writing_into_what_was_given_fails_and_the_error_says_the_cure(place: Place) -> None:
    with pytest.raises(NodeFailed) as caught:
        place.outputs(place.row("Raise"), arrays(1))
    assert str(caught.value) == f"Raise0: ValueError: output array is read-only; {CURE}"
    assert CURE in caught.value.remote_traceback
    assert "np.add(message.payload, 1" in caught.value.remote_traceback


@pytest.mark.parametrize("size", SIZES)
def test_a_node_that_says_so_writes_into_copies_and_its_siblings_see_nothing_of_it(place: Place, size: int) -> None:
    nodes = [place.node(mark) for mark in ("RaiseCopy", "Look", "Previous")]
    outputs = place.outputs(Pipeline(name="fan", nodes=nodes, links=[]), arrays(20, size))
    found = {each.name: [m.payload for m in outputs if m.creator == each.name] for each in nodes}
    assert [float(array[0]) for array in found["RaiseCopy"]] == [number + 1.0 for number in range(20)]
    assert found["Look"] == [float(number) for number in range(20)]
    assert [m.meta["before"] for m in outputs if m.creator == "Previous"][1:] == [float(number) for number in range(19)]


@pytest.mark.parametrize("size", SIZES)
def test_three_in_a_row_add_three_and_who_kept_it_before_them_keeps_it(place: Place, size: int) -> None:
    outputs = place.outputs(place.row("Previous", "RaiseCopy", "RaiseCopy", "RaiseCopy"), arrays(20, size))
    assert firsts(outputs) == [number + 3.0 for number in range(20)]
    assert [m.meta["before"] for m in outputs][1:] == [float(number) for number in range(19)]


def test_each_branch_has_lists_dicts_and_timers_of_its_own(place: Place) -> None:
    nodes = [place.node("Append", name=name) for name in ("one", "other", "third")]
    messages = [Message({"items": [1]}, meta={"notes": []}) for _ in range(5)]
    outputs = place.outputs(Pipeline(name="fan", nodes=nodes, links=[]), messages)
    assert [m.payload for m in outputs] == [[2, 1, 1]] * 15
    assert [(m.payload, m.meta) for m in messages] == [({"items": [1]}, {"notes": []})] * 5


@pytest.mark.parametrize("size", SIZES)
def test_another_try_starts_from_what_came(place: Place, tmp_path: Path, size: int) -> None:
    pipeline = place.row(
        "Stumble", retries=1, configuration={"path": str(tmp_path / "there")}, limits={"backoff": 0.01}
    )
    message = Message(np.zeros(size), meta={"notes": []})
    (output,) = place.outputs(pipeline, [message])
    assert (output.payload[0], output.meta["notes"], message.payload[0], message.meta["notes"]) == (1.0, 1, 0.0, [])


def test_a_dead_letter_is_what_came_and_so_is_its_replay(place: Place, tmp_path: Path) -> None:
    pipeline = place.row(
        "Stumble",
        folder=str(tmp_path / "folder"),
        on_error="dead_letter",
        configuration={"path": str(tmp_path / "there"), "always": True},
    )
    assert place.outputs(pipeline, [Message(np.zeros(3), meta={"notes": []})]) == []
    for _ in range(2):
        letters = DeadLetters(tmp_path / "folder" / PLACE)
        (letter,) = letters.find().letters
        kept = letters.message(letter)
        assert (kept.payload[0], kept.meta) == (0.0, {"notes": []})
        assert list(place.runner.stream(pipeline, replay=True)) == []


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_that_wrote_and_raised_is_run_one_by_one_from_what_came(place: Place, size: int) -> None:
    limits = {"batch": {"size": 4, "wait": 0.2}}
    pipeline = place.row("RaiseEach", on_error="skip", configuration={"bad": 2.0}, limits=limits)
    outputs = place.outputs(pipeline, arrays(8, size))
    assert firsts(outputs) == [number + 1.0 for number in range(8) if number != 2]


@pytest.mark.parametrize("size", SIZES)
def test_what_a_node_sent_stays_though_it_fills_the_same_array_again(place: Place, size: int) -> None:
    outputs = place.outputs(place.row("Refill"), arrays(30, size))
    assert firsts(outputs) == [float(number) for number in range(30)]
    outputs = place.outputs(place.row("Refill", configuration={"times": 3}), arrays(10, size))
    assert firsts(outputs) == [number + part for number in range(10) for part in (0.0, 0.1, 0.2)]


def test_what_a_node_sent_stays_though_it_counts_on(place: Place) -> None:
    outputs = place.outputs(place.row("Tally"), arrays(10))
    assert [len(m.payload["seen"]) for m in outputs][-1] - len(outputs[0].payload["seen"]) == 9
    assert [m.payload["seen"][-10:][-1] for m in outputs] == [float(number) for number in range(10)]


def test_a_source_that_fills_the_same_frame_again_changes_nothing_on_its_way(place: Place) -> None:
    source = NodeDefinition(
        name="camera", type="source", mark="tests.nodes.writing.Refilling", configuration={"count": 50}
    )
    nodes = [source, place.node("Look", name="one"), place.node("RaiseCopy", name="other")]
    pipeline = Pipeline(name="camera", nodes=nodes, links=[("camera", "one"), ("camera", "other")])
    outputs = place.outputs(pipeline, ())
    assert [(m.payload, m.meta["notes"]) for m in outputs if m.creator == "one"] == [(n, [n]) for n in range(50)]
    assert firsts(m for m in outputs if m.creator == "other") == [number + 1.0 for number in range(50)]


@pytest.mark.parametrize("apart", [False, True])
def test_what_nobody_keeps_is_not_copied_between_nodes_here(apart: bool) -> None:
    source = NodeDefinition(
        name="source", type="source", mark="tests.nodes.writing.Fresh", configuration={"count": 5, "apart": apart}
    )
    row = Place("here", "").row("FreshEach", "FreshEach", "FreshEach")
    pipeline = Pipeline(name="row", nodes=[source, *row.nodes], links=[("source", "FreshEach0"), *row.links])
    outputs = list(Runner().stream(pipeline, ()))
    assert [m.meta["there"] for m in outputs] == [[True] * 3] * 5
    assert all(m.payload.ctypes.data == m.meta["address"] for m in outputs)


def test_what_a_node_remembers_is_its_own(place: Place) -> None:
    """A warm instance begins anew with what it returned right after ``warmup``."""
    for _ in range(2):
        outputs = place.outputs(place.row("Sum"), arrays(4))
        assert [m.payload for m in outputs] == [0.0, 1.0, 3.0, 6.0]


def test_a_configuration_is_given_in_the_same_way(place: Place) -> None:
    configuration = {"names": ["one"], "table": np.zeros(3), "writes": False}
    outputs = place.outputs(place.row("Table", configuration=configuration), arrays(2))
    assert outputs[1].payload - outputs[0].payload == 1
    assert configuration["names"] == ["one"]
    with pytest.raises(NodeFailed, match="read-only"):
        place.outputs(place.row("Table", configuration=configuration | {"writes": True}), arrays(1))


def test_a_joined_message_that_is_handed_over_again_is_as_it_was(place: Place) -> None:
    """The newest of one link is joined with one after another of the other."""

    nodes = [NodeDefinition(name=name, type="proc", mark="passthrough_identity") for name in ("one", "other")]
    both = place.node("AppendEach", name="both", sync="latest")
    pipeline = Pipeline(name="join", nodes=[*nodes, both], links=[("one", "both"), ("other", "both")])
    outputs = place.outputs(pipeline, [Message([]) for _ in range(5)])
    assert {tuple(m.payload) for m in outputs} == {(1, 1)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("where", ["loop", "there"])
def test_a_function_gets_its_arguments_in_the_same_way(
    where: str, size: int, redis_url: str, shared_worker: StartWorker
) -> None:
    if where == "there":
        shared_worker("writes", pool="solo", config=CONFIG)
    array, items = np.zeros(size), [1]
    with Runner(redis_url, local=where == "loop") as runner:
        with pytest.raises(NodeFailed, match="read-only") as caught:
            runner.submit(raised, array).result(20)
        assert CURE in str(caught.value)
        calls = [runner.submit(raised_copy, array, items)]
        items.append(2)
        calls.append(runner.submit(raised_copy, array, items))
        found = [call.result(20) for call in calls]
        assert [(float(made[0]), length) for made, length in found] == [(1.0, 1), (1.0, 2)]
        assert array[0] == 0
        listed = runner.submit(counted, 3)
        listed.result(20).append(3)  # what its user does with a result changes no call that gets it
        assert runner.submit(length, listed).result(20) == 3
        with pytest.raises(ValueError, match="read-only"):
            found[0][0][0] = 1


def test_what_the_cache_has_is_given_in_the_same_way(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a node wrote into the notes of its input is what came of it, and none of the input's own."""
    monkeypatch.setenv("CELERYPIPE_CACHE_URL", (tmp_path / "cache").as_uri())
    both = [
        place.outputs(
            Pipeline(
                name="cached",
                nodes=[
                    place.node("Stumble", cache=True, configuration={"path": str(Path(__file__))}),
                    place.node("RaiseCopy", name="after"),
                    place.node("Look", name="beside"),
                ],
                links=[("Stumble", "after"), ("Stumble", "beside")],
            ),
            [Message(np.zeros(3), meta={"notes": [], "other": [1]})],
        )
        for _ in range(2)
    ]
    found = [sorted((m.creator, float(np.ravel(m.payload)[0]), str(m.meta)) for m in outputs) for outputs in both]
    meta = str({"notes": 1, "other": [1]})
    assert found == [[("after", 2.0, meta), ("beside", 1.0, meta)]] * 2
    assert place.runner.report is not None
    assert place.runner.report.nodes[0].hits == 1


def graph(seed: int, place: Place) -> Pipeline:
    """A random pipeline of nodes that write, keep what they get and refill what they sent; some are warped."""
    dice = random.Random(seed)  # noqa: S311  # graphs, no secrets
    nodes, links = [], []
    for number in range(7):
        deeds = [deed for deed in ("keep", "note", "write", "refill") if dice.random() < 0.5]
        above = dice.sample(range(number), min(number, dice.choice((0, 1, 1, 2))))
        warped = dice.random() < 0.6
        nodes.append(
            (place if warped else Place("here", "")).node(
                "WritingDeeds" if "write" in deeds else "Deeds",
                name=f"n{number}",
                configuration={"deeds": deeds, "mine": number},
                retries=dice.choice((0, 1)),
            )
        )
        links += [(f"n{each}", f"n{number}") for each in above]
    return Pipeline(name="graph", nodes=nodes, links=links)


@pytest.mark.parametrize("seed", range(6))
def test_any_graph_of_them_does_the_same_here_and_on_a_worker(
    seed: int, redis_url: str, shared_worker: StartWorker
) -> None:
    shared_worker("writes", pool="solo", config=CONFIG)
    found = []
    for name in ("here", "loop", "there"):
        place = Place(name, redis_url)
        messages = [Message(np.full(3, float(number)), meta={"notes": []}) for number in range(4)]
        outputs = place.outputs(graph(seed, place), messages)
        found.append(sorted(repr((m.sequence, m.creator, m.payload.tolist(), m.meta["notes"])) for m in outputs))
        assert [(m.payload[0], m.meta) for m in messages] == [(float(n), {"notes": []}) for n in range(4)]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) >= 4
