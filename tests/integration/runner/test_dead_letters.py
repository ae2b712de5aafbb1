"""Dead letters run again: nothing of them is lost, nothing of them comes twice, each goes when it is through."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import ConfigError, Message, NodeFailed, Pipeline, Report, Runner
from celerypipe.definition.parts import DeadLetterLimits
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.url import read_address
from celerypipe.runner.carrier.requests import request_replay, requests_in, taking_requests
from celerypipe.runner.folder.letters import DeadLetters
from tests.nodes import here, remote
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import SIZE, chain, frames, warped
from tests.servers import StartWorker, eventually
from tests.servers.extent import at_length


def store(folder: Path) -> DeadLetters:
    return DeadLetters(folder / "dead_letters")


def names(folder: Path) -> list[str]:
    return [letter.name for letter in store(folder).find().letters]


def node(name: str, mark: Any, **options: Any) -> NodeDefinition:
    return NodeDefinition(name=name, mark=mark, **options)


def picky(folder: Path, bad: list[int]) -> Pipeline:
    """Ten numbers through a node that refuses the bad ones, into a file."""
    file = {"path": str(folder / "out.jsonl")}
    return Pipeline(
        name="picky",
        nodes=[
            node("numbers", here.Numbers, configuration={"count": 10}),
            node("pick", remote.Picky, configuration={"bad": bad}, on_error="dead_letter"),
            NodeDefinition(name="file", type="sink", mark="json_lines", configuration=file),
        ],
        links=[("numbers", "pick"), ("pick", "file")],
        folder=str(folder),
    )


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def test_what_died_goes_on_from_where_it_died_and_the_file_keeps_what_it_has(tmp_path: Path) -> None:
    Runner().run(picky(tmp_path, [2, 5]))
    assert lines(tmp_path) == [0, 1, 3, 4, 6, 7, 8, 9]
    report = Runner().replay(picky(tmp_path, []))
    assert report.status == "done"
    assert [one.name for one in report.nodes] == ["pick", "file"]  # the source has nothing to do in it
    assert report["pick"].received == 2
    assert lines(tmp_path) == [0, 1, 3, 4, 6, 7, 8, 9, 2, 5]
    assert names(tmp_path) == []


def test_what_dies_again_stays_and_says_how_often(tmp_path: Path) -> None:
    Runner().run(picky(tmp_path, [2, 5, 7]))
    for _ in range(2):
        Runner().replay(picky(tmp_path, [5]))
    (letter,) = store(tmp_path).find().letters
    assert letter.replays == 2
    assert store(tmp_path).message(letter).payload == 5
    assert sorted(lines(tmp_path)) == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_what_dies_further_on_is_a_letter_of_that_node(tmp_path: Path) -> None:
    Runner().run(picky(tmp_path, [3]))
    Runner().replay(picky_twice(tmp_path, [], [3]))
    (letter,) = store(tmp_path).find().letters
    assert letter.node == "taste"
    Runner().replay(picky_twice(tmp_path, [], []))
    assert names(tmp_path) == []
    assert sorted(lines(tmp_path)) == list(range(10))


def picky_twice(folder: Path, bad: list[int], worse: list[int], on_error: str = "dead_letter") -> Pipeline:
    first = picky(folder, bad)
    taste = node("taste", remote.Picky, configuration={"bad": worse}, on_error=on_error)
    return Pipeline(
        name="picky",
        nodes=[*first.nodes, taste],
        links=[("numbers", "pick"), ("pick", "taste"), ("taste", "file")],
        folder=str(folder),
    )


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_what_is_given_up_further_on_keeps_its_letter(tmp_path: Path, on_error: str) -> None:
    Runner().run(picky(tmp_path, [3, 5, 6]))
    _, five, _ = names(tmp_path)
    pipeline = picky_twice(tmp_path, [], [5], on_error)
    if on_error == "stop":
        with pytest.raises(NodeFailed, match="5 is not to my taste"):
            Runner().replay(pipeline)
        assert five in names(tmp_path)
        assert 3 not in lines(tmp_path) or len(names(tmp_path)) < 3  # who is through is not run again
    else:
        Runner().replay(pipeline)
        assert names(tmp_path) == [five]
    Runner().replay(picky_twice(tmp_path, [], []))
    assert sorted(lines(tmp_path)) == list(range(10))
    assert names(tmp_path) == []


def test_only_the_letters_that_were_named_are_replayed(tmp_path: Path) -> None:
    Runner().run(picky(tmp_path, [2, 5]))
    first, second = names(tmp_path)
    report = Runner().replay(picky(tmp_path, []), [first])
    assert (report.through, report.total) == (1, 1)  # the bar of `celerypipe dead replay`
    assert names(tmp_path) == [second]
    assert lines(tmp_path)[-1] == 2
    with pytest.raises(ConfigError, match="no dead letter 'nobody'"):
        Runner().replay(picky(tmp_path, []), ["nobody"])


def test_a_letter_that_cannot_be_read_stays_and_the_others_go_on(tmp_path: Path) -> None:
    Runner().run(picky(tmp_path, [2, 5]))
    first, _ = names(tmp_path)
    (tmp_path / "dead_letters" / f"{first}.message").write_bytes(b"nonsense")
    said: list[str] = []
    Runner(on_event=said.append).replay(picky(tmp_path, []))
    assert names(tmp_path) == [first]
    assert any(f"{first}.message: is no message" in line for line in said)
    assert lines(tmp_path)[-1] == 5


def test_a_node_of_another_name_and_a_loose_end_are_refused_before_anything_runs(tmp_path: Path) -> None:
    Runner().run(picky(tmp_path, [2]))
    nodes = [
        node("numbers", here.Numbers),
        node("pack", remote.Picky, configuration={"bad": []}),
        node("end", here.Opened),
    ]
    renamed = Pipeline(name="picky", nodes=nodes, links=[("numbers", "pack"), ("pack", "end")], folder=str(tmp_path))
    with pytest.raises(ConfigError, match=r"1 of the dead letters died at a node 'pick'.*did you mean 'pack'"):
        Runner().replay(renamed)
    loose = Pipeline(
        name="picky", nodes=picky(tmp_path, []).nodes[:2], links=[("numbers", "pick")], folder=str(tmp_path)
    )
    with pytest.raises(ConfigError, match="what 'pick' sends goes nowhere"):
        Runner().replay(loose)
    assert len(names(tmp_path)) == 1
    with pytest.raises(ConfigError, match='has no "folder"'):
        Runner().replay(Pipeline(name="none", nodes=nodes, links=[("numbers", "pack"), ("pack", "end")]))


def test_a_joined_message_goes_to_its_node_past_the_join(tmp_path: Path) -> None:
    def pipeline(bad: list[int]) -> Pipeline:
        nodes = [
            node("numbers", here.Numbers, configuration={"count": 6}),
            node("left", remote.Picky, configuration={"bad": bad}, on_error="dead_letter"),
            node("right", here.Keep),
            node("both", remote.Odd, configuration={"what": "number"}, sync="key:number", on_error="dead_letter")
            if bad
            else node("both", remote.Echo, sync="key:number", on_error="dead_letter"),
            NodeDefinition(
                name="file", type="sink", mark="json_lines", configuration={"path": str(tmp_path / "out.jsonl")}
            ),
        ]
        links = [("numbers", "left"), ("numbers", "right"), ("left", "both"), ("right", "both"), ("both", "file")]
        return Pipeline(name="joined", nodes=nodes, links=links, folder=str(tmp_path))

    Runner().run(pipeline([99]))  # nothing dies at left, all of it at both
    assert len(names(tmp_path)) == 6
    Runner().replay(pipeline([]))
    assert [[part["payload"] for part in pair] for pair in lines(tmp_path)] == [[n, n] for n in range(6)]
    assert names(tmp_path) == []


def test_what_finds_no_partner_in_a_join_any_more_is_through_at_the_end(tmp_path: Path) -> None:
    def pipeline(bad: list[int]) -> Pipeline:
        nodes = [
            node("numbers", here.Numbers, configuration={"count": 3}),
            node("left", remote.Picky, configuration={"bad": bad}, on_error="dead_letter"),
            node("right", here.Keep),
            node("end", here.Opened, sync="key:number"),
        ]
        links = [("numbers", "left"), ("numbers", "right"), ("left", "end"), ("right", "end")]
        return Pipeline(name="joined", nodes=nodes, links=links, folder=str(tmp_path))

    Runner().run(pipeline([1]))
    report = Runner().replay(pipeline([]))
    assert report["end"].unmatched == 1
    assert names(tmp_path) == []


def test_a_letter_is_through_when_the_reader_of_a_stream_asks_for_more(tmp_path: Path) -> None:
    def pipeline(bad: list[int]) -> Pipeline:
        return warped(
            "tests.nodes.remote.Picky",
            "nobody",
            configuration={"bad": bad},
            on_error="dead_letter",
            folder=str(tmp_path),
        )

    inputs = [Message(number) for number in range(40)]
    out = list(Runner(local=True).stream(pipeline(list(range(30))), inputs))
    assert [message.payload for message in out] == list(range(30, 40))
    reading = Runner(local=True).stream(pipeline([]), replay=True)
    assert next(reading).payload == 0
    reading.close()
    assert len(names(tmp_path)) == 30  # he left with a handful of them, and none is known to be through
    again = [message.payload for message in Runner(local=True).stream(pipeline([]), replay=True)]
    assert again == list(range(30))
    assert names(tmp_path) == []


def test_letters_of_warped_nodes_go_through_their_workers_once_more(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    """Two nodes in a row on one worker, with payloads that the runner never sees."""
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    folder = str(tmp_path)
    broken = chain("tsolo", "Large", "Nap", folder=folder, n1={"on_error": "dead_letter"})
    assert list(Runner(redis_url).stream(broken, frames(40))) == []  # nobody sleeps for an array of seconds
    assert len(names(tmp_path)) == 40
    mended = chain("tsolo", "Large", "Large", "Echo", folder=folder)
    arrays = [message.payload for message in Runner(redis_url).stream(mended, replay=True)]
    assert [(array.shape, {*array.tolist()}) for array in arrays] == [((SIZE,), {4 * n}) for n in range(40)]
    assert names(tmp_path) == []


def test_what_dies_again_on_a_worker_stays(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)

    def run(bad: list[int], **stream: Any) -> list[int]:
        pipeline = warped(
            "tests.nodes.remote.Picky",
            "tsolo",
            configuration={"bad": bad},
            on_error="dead_letter",
            folder=str(tmp_path),
        )
        return [message.payload for message in Runner(redis_url).stream(pipeline, **stream)]

    assert run([3, 4, 5], inputs=map(Message, range(100))) == [n for n in range(100) if n not in (3, 4, 5)]
    assert run([4], replay=True) == [3, 5]
    (letter,) = store(tmp_path).find().letters
    assert (letter.replays, letter.error, store(tmp_path).message(letter).payload) == (1, "NodeFailed", 4)
    assert letter.worker
    assert run([], replay=True) == [4]
    assert names(tmp_path) == []


def test_only_what_it_was_made_from_is_left_and_a_replay_begins_there(tmp_path: Path) -> None:
    """A payload that was lost with Redis: its letter holds the ancestor, and says which node takes that."""
    letters = store(tmp_path)
    why = {"error": "NodeFailed", "text": "lost", "attempts": 1, "starts_at": "n0"}
    letters.folder.mkdir()
    letters.keep("n1", Message(np.full(4, 3)), why)
    pipeline = chain("nobody", "Large", "Large", folder=str(tmp_path))
    (message,) = Runner(local=True).stream(pipeline, replay=True)
    assert message.payload.tolist() == [12, 12, 12, 12]
    assert names(tmp_path) == []


# -- in a run that is going on ----------------------------------------------------------------------------------------


def gated(folder: Path, gate: Path, bad: list[int]) -> Pipeline:
    """Numbers, then a path, which passes ``wait`` when a file is there; refused ones die at ``pick`` before.

    The source ends when there is a file ``end``.
    """
    source = {"items": [*range(6), str(gate)], "path": str(folder / "end")}
    nodes = [
        node("items", here.Until, configuration=source),
        node("pick", remote.Picky, configuration={"bad": bad, "times": 1}, on_error="dead_letter"),
        NodeDefinition(
            name="wait",
            type="proc",
            mark="tests.nodes.remote.Gate",
            warped=True,
            warp_configuration={"queue": "tthreads", "window": 4},
        ),
        NodeDefinition(name="file", type="sink", mark="json_lines", configuration={"path": str(folder / "out.jsonl")}),
    ]
    links = [("items", "pick"), ("pick", "wait"), ("wait", "file")]
    return Pipeline(name="gated", nodes=nodes, links=links, folder=str(folder))


class Running(threading.Thread):
    """A run in the background."""

    def __init__(self, url: str, pipeline: Pipeline) -> None:
        super().__init__(daemon=True)
        self.said: list[str] = []
        self.runner = Runner(url, on_event=self.said.append)
        self.pipeline = pipeline
        self.report: Report | None = None
        self.start()

    def run(self) -> None:
        self.report = self.runner.run(self.pipeline)

    @property
    def id(self) -> str:
        run = self.runner._current
        assert run is not None
        return run.course.run_id

    def end(self) -> Report:
        self.join(30)
        assert self.report is not None
        return self.report


def test_a_run_that_is_going_on_replays_what_it_is_asked_for(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("tthreads", pool="threads", concurrency=2, config=CONFIG)
    gate = tmp_path / "gate"
    running = Running(redis_url, gated(tmp_path, gate, [1, 4]))
    eventually(lambda: len(names(tmp_path)) == 2 and lines(tmp_path) == [0, 2, 3, 5], "two dead letters")
    run = running.id
    one, four = names(tmp_path)
    request_replay(read_address(redis_url), run, [one, "nobody.pick", four])
    request_replay(read_address(redis_url), run, [one])  # on its way already, or through
    # Results leave in order: what is replayed waits behind the path, and so the letters are still there.
    eventually(lambda: any("no dead letter 'nobody.pick'" in line for line in running.said), "a word about nobody")
    with pytest.raises(ConfigError, match="being replayed already"), store(tmp_path).replaying():
        pass
    assert set(names(tmp_path)) == {one, four}
    gate.touch()
    eventually(lambda: names(tmp_path) == [], "that both are through")
    assert lines(tmp_path) == [0, 2, 3, 5, str(gate), 1, 4]
    (tmp_path / "end").touch()
    assert running.end()["pick"].received == 9
    with pytest.raises(ConfigError, match=f"there is no run '{run}' active"):
        request_replay(read_address(redis_url), run, [one])


def test_nonsense_that_is_asked_of_a_run_changes_nothing(
    shared_worker: StartWorker, redis_url: str, redis_client: Client, tmp_path: Path
) -> None:
    shared_worker("tthreads", pool="threads", concurrency=2, config=CONFIG)
    gate = tmp_path / "gate"
    running = Running(redis_url, gated(tmp_path, gate, [1]))
    eventually(lambda: names(tmp_path), "a dead letter")
    key = keys.USUAL.replay(running.id)
    redis_client.rpush(key, b"../../x", b"\xff\xfe", b"", b"x" * 5000, b"nobody")
    eventually(lambda: not redis_client.exists(key), "that they were taken")
    redis_client.set(key, "no list", ex=60)
    assert requests_in(*redis_client.together(taking_requests(redis_client.names, running.id))) == []
    for path in (gate, tmp_path / "end"):
        path.touch()
    assert running.end().status == "done"
    assert len(names(tmp_path)) == 1


def test_a_letter_for_a_node_that_has_ended_stays(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("tthreads", pool="threads", concurrency=2, config=CONFIG)
    gate = tmp_path / "gate"
    (tmp_path / "end").touch()
    running = Running(redis_url, gated(tmp_path, gate, [1]))
    eventually(lambda: names(tmp_path) and running.runner._current, "a dead letter")
    run = running.runner._current
    assert run is not None
    eventually(lambda: run.stations["pick"].finished.is_set(), "the end of pick")
    request_replay(read_address(redis_url), running.id, names(tmp_path))
    eventually(lambda: any("pick takes no more" in line for line in running.said), "that it is too late")
    gate.touch()
    assert running.end().status == "done"
    assert len(names(tmp_path)) == 1


# -- limits and company -----------------------------------------------------------------------------------------------


def test_a_pipeline_says_how_much_is_kept(tmp_path: Path) -> None:
    said: list[str] = []
    pipeline = picky(tmp_path, [2, 5, 7]).model_copy(update={"dead_letters": DeadLetterLimits(count=2)})
    Runner(on_event=said.append).run(pipeline)
    assert [store(tmp_path).message(letter).payload for letter in store(tmp_path).find().letters] == [5, 7]
    assert [line for line in said if "dead letters" in line] == [
        f"dead letters: there are more than 2 in {store(tmp_path).folder}: the oldest are removed; "
        "celerypipe dead replay empties it"
    ]


def test_nothing_to_replay_is_a_run_that_is_done(tmp_path: Path) -> None:
    assert Runner().replay(picky(tmp_path, [])).status == "done"
    Runner().run(picky(tmp_path, [2]))
    assert Runner().replay(picky(tmp_path, []), []).nodes == ()
    assert list(Runner().stream(picky(tmp_path, []), replay=[])) == []
    assert len(names(tmp_path)) == 1


def test_two_replays_of_one_folder_do_not_run_at_the_same_time(tmp_path: Path) -> None:
    Runner().run(picky(tmp_path, [2]))
    with store(tmp_path).replaying(), pytest.raises(ConfigError, match="being replayed already"):
        Runner().replay(picky(tmp_path, []))
    assert len(names(tmp_path)) == 1


def test_what_was_not_even_tried_again_still_says_what_it_died_of(redis_url: str, tmp_path: Path) -> None:
    def pipeline(queue: str) -> Pipeline:
        return warped(
            "tests.nodes.remote.Picky",
            queue,
            configuration={"bad": list(range(10))},
            on_error="dead_letter",
            folder=str(tmp_path),
            limits={"on_no_worker": "fail"},
        )

    assert list(Runner(local=True).stream(pipeline("dnobody"), map(Message, range(10)))) == []
    assert list(Runner(redis_url).stream(pipeline("dnobody"), replay=True)) == []
    letters = store(tmp_path).find().letters
    assert [letter.replays for letter in letters] == [1] * 10
    for letter in letters:
        assert "is not to my taste" in letter.text
        assert "Traceback" in letter.traceback
        assert "replayed, and not tried" in letter.note


@pytest.mark.parametrize(("seed", "local"), [(0, True), (1, True), (2, False), pytest.param(3, False, marks=at_length)])
def test_whatever_dies_wherever_in_the_end_every_number_is_in_every_sink_once(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path, seed: int, local: bool
) -> None:
    """A graph with branches, and two nodes in a row on one worker; whoever dies is replayed, and may die again."""
    if not local:
        shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    chance = random.Random(seed)  # noqa: S311  # no secret

    def pipeline(share: float) -> Pipeline:
        def picky(name: str, **options: Any) -> NodeDefinition:
            bad = [number for number in range(60) if chance.random() < share]
            return node(name, remote.Picky, configuration={"bad": bad}, on_error="dead_letter", **options)

        def file(name: str) -> NodeDefinition:
            return NodeDefinition(
                name=name, type="sink", mark="json_lines", configuration={"path": str(tmp_path / f"{name}.jsonl")}
            )

        away = {"warped": True, "warp_configuration": {"queue": "tsolo", "window": 7}}
        nodes = [
            node("numbers", here.Numbers, configuration={"count": 60}),
            picky("first"),
            picky("left", **away),
            picky("right"),
            picky("after", **away),
            picky("further", **away),
            file("both"),
            file("one"),
        ]
        links = [
            ("numbers", "first"),
            ("first", "left"),
            ("first", "right"),
            ("left", "both"),
            ("right", "after"),
            ("after", "further"),
            ("further", "both"),
            ("right", "one"),
        ]
        return Pipeline(name="tree", nodes=nodes, links=links, folder=str(tmp_path))

    runner = Runner(redis_url, local=local)
    runner.run(pipeline(0.3))
    assert len(names(tmp_path)) > 30
    for share in (0.5, 0.4, 0.3, 0.0):
        runner.replay(pipeline(share))
    assert names(tmp_path) == []
    found = {name: sorted(map(int, (tmp_path / f"{name}.jsonl").read_text().split())) for name in ("both", "one")}
    assert found == {"both": sorted([*range(60), *range(60)]), "one": list(range(60))}
