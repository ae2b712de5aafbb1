"""What a journal says is through, whatever the graph looks like; and what is refused. Runs end here by an error."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from celerypipe import ConfigError, Message, NodeFailed, Pipeline, Report, Runner
from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.cli import main
from celerypipe.definition.pipeline import NodeDefinition, WarpConfiguration
from celerypipe.runner.folder.journal import FILE, Journal, JournalContent, parse
from celerypipe.runner.folder.journals import kept, prune
from celerypipe.runner.folder.letters import DeadLetters
from celerypipe.runner.resume import obstacle
from tests.nodes import here, remote
from tests.nodes.stateful import CONFIG
from tests.runs.living import living
from tests.servers import ROOT, StartWorker


class Story:
    """A pipeline with a trap in it: it fails, the trap is taken away, it goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gate = folder / "gate"
        self.out = folder / "out.jsonl"
        self.runner = Runner(local=True)

    def trap(self, at: Any, after: int | None = None) -> NodeDefinition:
        """Falls in once ``after`` lines were written; by default all before it."""
        configuration = {
            "at": at,
            "gate": str(self.gate),
            "out": str(self.out),
            "after": at if after is None else after,
        }
        return NodeDefinition(name="trap", mark=here.Trap, type="proc", configuration=configuration)

    def pipeline(self, nodes: list[NodeDefinition], links: list[Any], **options: Any) -> Pipeline:
        file = NodeDefinition(name="file", type="sink", mark="json_lines", configuration={"path": str(self.out)})
        return Pipeline(name="story", folder=self.folder / "kept", nodes=[*nodes, file], links=links, **options)

    def fail(self, pipeline: Pipeline, resume: str | None = None) -> str:
        """Run it into the trap; return its id."""
        with pytest.raises(NodeFailed, match="fell into the trap") as caught:
            self.runner.run(pipeline, resume=resume)
        run: str = caught.value.report.run
        return run

    def go_on(self, pipeline: Pipeline, run: str) -> Report:
        self.gate.touch()
        report = self.runner.run(pipeline, resume=run)
        assert report.status == "done"
        assert not self.journals()
        return report

    def journals(self) -> list[Path]:
        return sorted((self.folder / "kept" / "journals").glob(f"*/{FILE}"))

    def through(self) -> list[Any]:
        (journal,) = self.journals()
        return parse(journal.read_bytes()).through["numbers"].to_list()

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.read_text().splitlines()]


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def stream(name: str = "numbers", **configuration: Any) -> NodeDefinition:
    configuration = {"rate": 0, **(configuration or {"count": 60})}
    return NodeDefinition(name=name, type="source", mark="data_streamer", configuration=configuration)


def proc(name: str, mark: type, **options: Any) -> NodeDefinition:
    return NodeDefinition(name=name, type="proc", mark=mark, **options)


def test_what_one_message_became_is_through_together_and_none_of_it_is_written_twice(story: Story) -> None:
    numbers = [4, 0, 2, 3, 1]
    nodes = [stream(items=numbers), proc("repeat", remote.Repeat), story.trap([3, 1], 7)]
    pipeline = story.pipeline(nodes, [("numbers", "repeat"), ("repeat", "trap"), ("trap", "file")])
    run = story.fail(pipeline)
    assert story.lines()[-1] == [3, 0]
    assert story.go_on(pipeline, run)["numbers"].sent == 2
    assert story.lines() == [[number, copy] for number in numbers for copy in range(number)]


def test_parts_of_a_join_are_through_together(story: Story) -> None:
    nodes = [
        stream(),
        proc("left", here.Keep),
        proc("right", here.Keep, configuration={"delay": 0.001}),
        proc("both", remote.Echo, sync="zip"),
        story.trap(40),
    ]
    links = [("numbers", "left"), ("numbers", "right"), ("left", "both"), ("right", "both"), ("both", "trap")]
    pipeline = story.pipeline(nodes, [*links, ("trap", "file")])
    run = story.fail(pipeline)
    story.go_on(pipeline, run)
    assert [[part["payload"] for part in pair] for pair in story.lines()] == [[n, n] for n in range(60)]


def test_two_sources_stay_in_step(story: Story) -> None:
    nodes = [stream("left"), stream("right"), proc("both", remote.Echo, sync="zip"), story.trap(40)]
    links = [("left", "both"), ("right", "both"), ("both", "trap"), ("trap", "file")]
    pipeline = story.pipeline(nodes, links)
    run = story.fail(pipeline)
    report = story.go_on(pipeline, run)
    assert report["left"].sent == report["right"].sent < 60
    assert [[part["payload"] for part in pair] for pair in story.lines()] == [[n, n] for n in range(60)]


def test_what_was_given_up_is_through(story: Story) -> None:
    nodes = [
        stream(),
        proc("picky", remote.Picky, on_error="skip", configuration={"bad": [3, 5]}),
        proc("fussy", remote.Picky, on_error="dead_letter", configuration={"bad": [7, 9]}),
        story.trap(40, 36),
    ]
    links = [("numbers", "picky"), ("picky", "fussy"), ("fussy", "trap"), ("trap", "file")]
    pipeline = story.pipeline(nodes, links)
    run = story.fail(pipeline)
    # The sink was perhaps not back from the last one when the run failed.
    assert story.through() in ([[0, 38]], [[0, 39]])
    assert not story.go_on(pipeline, run)["picky"].failed
    assert story.lines() == [number for number in range(60) if number not in (3, 5, 7, 9)]


def test_a_letter_of_a_message_that_is_sent_again_takes_the_place_of_the_first(story: Story) -> None:
    """What died in the last second before a kill was not noted, and dies again."""
    bad = [(3, 0), (3, 2), (2, 1)]
    nodes = [
        stream(items=[3, 2, 4, 1]),
        proc("repeat", remote.Repeat),
        proc("fussy", remote.Picky, on_error="dead_letter", configuration={"bad": bad}),
        story.trap([4, 3], 5),
    ]
    pipeline = story.pipeline(nodes, [("numbers", "repeat"), ("repeat", "fussy"), ("fussy", "trap"), ("trap", "file")])
    run = story.fail(pipeline)
    store = DeadLetters(story.folder / "kept" / "dead_letters")
    before = store.find().letters
    assert [store.message(letter).payload for letter in before] == bad
    (journal,) = story.journals()
    head = journal.read_bytes().splitlines(keepends=True)[0]
    journal.write_bytes(head + b'{"through":{"numbers":[[1,1]]},"following":{}}\n')  # the first is not noted
    story.go_on(pipeline, run)
    after = store.find().letters
    assert sorted(store.message(letter).payload for letter in after) == sorted(bad)
    assert [each.name in {letter.name for letter in after} for each in before] == [False, False, True]


def test_what_a_warped_node_gave_up_or_swallowed_is_through(story: Story) -> None:
    nodes = [
        proc("picky", remote.Picky, on_error="skip", warped=True, configuration={"bad": [2]}),
        proc("repeat", remote.Repeat, warped=True),
        story.trap([1, 0], 3),
    ]
    numbers = stream(items=[3, 2, 0, 0, 1, 3])
    links = [("numbers", "picky"), ("picky", "repeat"), ("repeat", "trap"), ("trap", "file")]
    pipeline = story.pipeline([numbers, *nodes], links)
    run = story.fail(pipeline)
    assert story.through() in ([[0, 3]], [[1, 3]])
    story.go_on(pipeline, run)
    assert story.lines() == [[3, 0], [3, 1], [3, 2], [1, 0], [3, 0], [3, 1], [3, 2]]


def test_numbers_of_messages_go_on_too(story: Story, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join("\n" if number % 7 == 3 else f"{number}\n" for number in range(60)))
    lines = NodeDefinition(name="lines", type="source", mark="json_lines", configuration={"path": str(source)})
    file = NodeDefinition(
        name="file", type="sink", mark="json_lines", configuration={"path": str(story.out), "content": "message"}
    )
    pipeline = Pipeline(
        name="story",
        folder=tmp_path / "kept",
        nodes=[lines, story.trap(41, 20), file],
        links=[("lines", "trap"), ("trap", "file")],
    )
    story.go_on(pipeline, story.fail(pipeline))
    expected = [number for number in range(60) if number % 7 != 3]
    assert [(line["payload"], line["sequence"]) for line in story.lines()] == [(n, i) for i, n in enumerate(expected)]


def test_a_run_that_is_done_leaves_nothing_and_one_without_a_folder_keeps_nothing(story: Story) -> None:
    story.gate.touch()
    pipeline = story.pipeline([stream(), story.trap(1)], [("numbers", "trap"), ("trap", "file")])
    story.runner.run(pipeline)
    assert not list((story.folder / "kept" / "journals").iterdir())
    without = pipeline.model_copy(update={"folder": None})
    assert 'give the pipeline a "folder"' in obstacle(without, Catalogue())
    story.runner.run(without)
    with pytest.raises(ConfigError, match=r"no run of pipeline 'story' can be resumed: it has no folder"):
        story.runner.run(without, resume="abcd")


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (proc("odd", here.Remembering), "'odd' is stateful"),
        (proc("odd", remote.Echo, sync="latest"), "'odd' joins by 'latest'"),
    ],
)
def test_what_remembers_cannot_be_resumed(story: Story, node: NodeDefinition, reason: str) -> None:
    pipeline = story.pipeline([stream(), node], [("numbers", "odd"), ("odd", "file")])
    assert obstacle(pipeline, Catalogue()).startswith(reason)
    story.runner.run(pipeline)
    assert not (story.folder / "kept" / "journals").exists()
    there = node.model_copy(update={"warped": True})
    assert obstacle(story.pipeline([stream(), there], []), Catalogue(), local=True).startswith(reason)


def test_a_source_that_cannot_seek_cannot_be_resumed(story: Story) -> None:
    pipeline = story.pipeline([NodeDefinition(name="n", mark=here.Numbers, type="source")], [("n", "file")])
    with pytest.raises(ConfigError, match=r"none of its sources can continue in the middle: json_lines, image_files"):
        story.runner.run(pipeline, resume="abcd")


def test_a_definition_that_changed_is_refused_unless_only_how_it_runs_did(story: Story) -> None:
    def made(**options: Any) -> Pipeline:
        nodes = [stream(), proc("keep", here.Keep, **options), story.trap(40)]
        return story.pipeline(nodes, [("numbers", "keep"), ("keep", "trap"), ("trap", "file")])

    run = story.fail(made())
    with pytest.raises(
        ConfigError, match=rf"run '{run}' cannot be continued: node 'keep' changed since.*without --resume"
    ):
        story.runner.run(made(configuration={"every": 2}), resume=run)
    shorter = story.pipeline([stream(), story.trap(40)], [("numbers", "trap"), ("trap", "file")])
    with pytest.raises(ConfigError, match=r"node 'keep', its links changed since"):
        story.runner.run(shorter, resume=run)
    story.go_on(made(timeout=30, retries=2, on_error="skip", warped=True), run)
    assert story.lines() == list(range(60))


def test_one_element_of_an_array_is_a_change_and_what_cannot_be_compared_is_no_definition_to_go_on_with(
    story: Story,
) -> None:
    def made(weights: Any) -> Pipeline:
        nodes = [stream(), proc("weigh", here.Weigh, configuration={"weights": weights}), story.trap(40)]
        return story.pipeline(nodes, [("numbers", "weigh"), ("weigh", "trap"), ("trap", "file")])

    ones, other = np.ones(2000), np.ones(2000)
    other[1000] = 7
    said: list[str] = []
    story.runner = Runner(local=True, on_event=said.append)
    run = story.fail(made(ones))
    assert not (story.folder / "kept" / "config.json").exists(), "another definition would be read from it"
    assert "no config.json is written: its definition has values that JSON cannot represent" in "\n".join(said)
    with pytest.raises(ConfigError, match=rf"run '{run}' cannot be continued: node 'weigh' changed since"):
        story.runner.run(made(other), resume=run)
    story.go_on(made(ones.copy()), run)
    text = obstacle(made({"of": object()}), Catalogue())
    assert "node 'weigh' is still the same could not be told: weights['of']: an object cannot travel" in text


def test_an_unknown_run_is_answered_with_those_there_are(story: Story) -> None:
    pipeline = story.pipeline([stream(), story.trap(40)], [("numbers", "trap"), ("trap", "file")])
    with pytest.raises(
        ConfigError, match=r"no journal of a run 'abcd'; no run can be resumed, .*: no run has ended there yet"
    ):
        story.runner.run(pipeline, resume="abcd")
    run = story.fail(pipeline)
    strange = story.folder / "kept" / "journals" / "mine" / FILE
    strange.parent.mkdir()
    strange.write_text("shopping list\n")
    near = run[:-1] + ("0" if run[-1] != "0" else "1")
    with pytest.raises(ConfigError) as caught:
        story.runner.run(pipeline, resume=near)
    text = str(caught.value)
    assert f"there is no journal of a run {near!r}; did you mean {run!r}?" in text
    assert f"\n  {run}  story, begun 20" in text
    assert re.search(r"(39|40) source messages through\n", text)
    assert f"{strange} is no journal: line 1 is no JSON" in text
    assert strange.read_text() == "shopping list\n"
    with pytest.raises(ConfigError, match=rf"--resume needs a run; these are in \S+:\n  {run}"):
        story.runner.run(pipeline, resume="")
    later = story.fail(pipeline)
    same = next(size for size in range(12) if run[: size + 1] != later[: size + 1])
    if same:
        with pytest.raises(ConfigError, match=rf"begins the ids of 2 runs \({later}, {run}\); write more of it"):
            story.runner.run(pipeline, resume=run[:same])
    story.gate.touch()
    assert story.runner.run(pipeline, resume=run[: same + 1]).status == "done"


def test_a_run_of_which_nothing_was_through_says_so(story: Story) -> None:
    pipeline = story.pipeline([stream(), story.trap(0)], [("numbers", "trap"), ("trap", "file")])
    run = story.fail(pipeline)
    said = rf"the last run, '{run}', failed before anything of its sources was through, .* without --resume"
    for wanted in ("", run):
        with pytest.raises(ConfigError, match=said):
            story.runner.run(pipeline, resume=wanted)
    story.gate.touch()
    done = story.runner.run(pipeline)
    with pytest.raises(ConfigError, match=rf"the last run, '{done.run}', is done"):
        story.runner.run(pipeline, resume="")


def test_a_run_that_is_still_going_on_is_not_resumed(story: Story) -> None:
    pipeline = story.pipeline([stream(), story.trap(40)], [("numbers", "trap"), ("trap", "file")])
    run = story.fail(pipeline)
    (path,) = story.journals()
    other = Journal.open(path.parent, "abcd")
    try:
        with pytest.raises(ConfigError, match=rf"run '{run}' is still active"):
            story.runner.run(pipeline, resume=run)
    finally:
        other.close()
    story.go_on(pipeline, run)


def test_an_output_file_that_changed_since_is_refused(story: Story) -> None:
    pipeline = story.pipeline([stream(), story.trap(40)], [("numbers", "trap"), ("trap", "file")])
    run = story.fail(pipeline)
    whole = story.out.read_bytes()
    for changed in (whole[:-8], whole + b"1\n", whole + b"1\n2\n", b""):
        story.out.write_bytes(changed)
        with pytest.raises(
            ConfigError, match=r"out.jsonl: has \d+ bytes and the run left \d+, so it was changed since"
        ):
            story.runner.run(pipeline, resume=run)
        assert story.out.read_bytes() == changed
    story.out.write_bytes(whole)
    story.go_on(pipeline, run)
    assert story.lines() == list(range(60))


def test_a_sink_of_ones_own_gets_the_same_key_again(story: Story) -> None:
    story.out.touch()
    keyed = NodeDefinition(name="keyed", type="sink", mark=here.Keyed, configuration={"path": str(story.out)})
    pipeline = Pipeline(
        name="story",
        folder=story.folder / "kept",
        nodes=[stream(), story.trap(40), keyed],
        links=[("numbers", "trap"), ("trap", "keyed")],
    )
    story.go_on(pipeline, story.fail(pipeline))
    keys = story.out.read_text().splitlines()
    assert set(keys) == {f"numbers/{number}/trap/keyed/0" for number in range(60)}
    assert len(keys) <= 61


def test_old_journals_go_and_what_is_none_stays(tmp_path: Path) -> None:
    for number in range(6):
        content = JournalContent([f"abc{number}"], "story", 0.0)
        content.started = number
        Journal.create(tmp_path / f"abc{number}", content).close()
    busy = Journal.open(tmp_path / "abc0", "ffff")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / FILE).write_text("{}\n")
    elsewhere = tmp_path / "else" / "where"
    Journal.create(elsewhere, JournalContent(["dddd"], "story", 0.0)).close()
    (tmp_path / "link").symlink_to(elsewhere)
    prune(tmp_path, 2)
    found, strange = kept(tmp_path)
    busy.close()
    assert (elsewhere / FILE).exists()
    assert [each.content.runs[0] for each in found] == ["abc5", "abc4", "abc0"]
    assert len(strange) == 1


def test_messages_that_are_fed_from_code_have_no_journal(story: Story) -> None:
    pipeline = story.pipeline([story.trap(100)], [("trap", "file")])
    assert list(story.runner.stream(pipeline, [Message(1)])) == []
    assert story.lines() == [1]
    assert not (story.folder / "kept" / "journals").exists()


def test_another_attempt_has_the_same_key(story: Story) -> None:
    configuration = {"path": str(story.out), "odd": {2: "fail", 4: "hang"}}
    keyed = NodeDefinition(
        name="keyed", type="sink", mark=here.Keyed, configuration=configuration, retries=1, timeout=0.5
    )
    pipeline = Pipeline(
        name="story", folder=story.folder / "kept", nodes=[stream(count=6), keyed], links=[("numbers", "keyed")]
    )
    story.runner.run(pipeline)
    keys = [f"numbers/{number}/numbers/keyed/0" for number in (0, 1, 2, 2, 3, 4, 4, 5)]
    assert story.out.read_text().splitlines() == keys


def test_the_nodes_in_the_documentation_work(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "resume.md").read_text(encoding="utf-8")
    module = ModuleType("documented")
    monkeypatch.setitem(sys.modules, "documented", module)
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, module.__dict__)  # noqa: S102  # our own page
    rows = [(key, f"row {key}") for key in range(0, 90, 3)]
    source = NodeDefinition(name="rows", type="source", mark="documented.Rows", configuration={"rows": rows})
    pipeline = story.pipeline([source, story.trap("row 60", 20)], [("rows", "trap"), ("trap", "file")])
    assert story.go_on(pipeline, story.fail(pipeline))["rows"].sent <= 11
    assert story.lines() == [text for _, text in rows]
    sink = module.Table(str(story.folder / "table.db"))
    with living(sink):
        for key in ("a", "b", "a"):
            sink.update_once(Message("text"), key)
        assert sink.table.execute("SELECT key FROM lines").fetchall() == [("a",), ("b",)]


def test_a_sink_that_writes_to_a_device_keeps_no_record(story: Story) -> None:
    sink = NodeDefinition(name="file", type="sink", mark="json_lines", configuration={"path": "/dev/null"})
    pipeline = Pipeline(
        name="story",
        folder=story.folder / "kept",
        nodes=[stream(), story.trap(40, 0), proc("keep", here.Keep), sink],
        links=[("numbers", "trap"), ("trap", "keep"), ("keep", "file")],
    )
    story.out.touch()
    with pytest.raises(NodeFailed):
        story.runner.run(pipeline)
    assert not list((story.folder / "kept").glob("journals/*/*.written"))


def test_a_folder_without_room_for_a_journal_runs_all_the_same(story: Story) -> None:
    said: list[str] = []
    (story.folder / "kept").mkdir()
    (story.folder / "kept" / "journals").touch()
    pipeline = story.pipeline([stream()], [("numbers", "file")])
    assert Runner(on_event=said.append).run(pipeline).status == "done"
    assert "this run cannot be resumed, no journal can be written to" in said[0]
    assert story.lines() == list(range(60))


def test_what_only_its_worker_knows_to_be_stateful_cannot_be_resumed_either(
    story: Story, shared_worker: StartWorker, redis_url: str
) -> None:
    shared_worker("ssolo", pool="solo", concurrency=1, config=CONFIG)
    warp = {"queue": "ssolo"}
    summing = NodeDefinition(
        name="sum", type="proc", mark="tests.nodes.stateful.RunningSum", warped=True, warp_configuration=warp
    )
    pipeline = story.pipeline(
        [stream(), summing, story.trap(780, 39)], [("numbers", "sum"), ("sum", "trap"), ("trap", "file")]
    )
    assert not obstacle(pipeline, Catalogue())
    said: list[str] = []
    story.runner = Runner(redis_url, on_event=said.append)
    run = story.fail(pipeline)
    assert not [text for text in said if "--resume" in text]
    assert said[-1] == "this run cannot be resumed: 'sum' is stateful, and what it remembers is lost with its run"
    with pytest.raises(ConfigError, match=rf"run '{run}' cannot be resumed: 'sum' is stateful"):
        story.runner.run(pipeline, resume=run)
    with pytest.raises(ConfigError, match=rf"{run}  story, .* cannot be resumed: 'sum' is stateful"):
        story.runner.run(pipeline, resume="")
    pinned = summing.model_copy(update={"warp_configuration": WarpConfiguration(queue="ssolo", pinned=True)})
    assert obstacle(story.pipeline([stream(), pinned], []), Catalogue()).startswith("'sum' is stateful")


def test_a_run_that_was_killed_over_such_a_node_says_so(story: Story) -> None:
    pipeline = story.pipeline([stream(), story.trap(40)], [("numbers", "trap"), ("trap", "file")])
    run = story.fail(pipeline)
    (path,) = story.journals()
    journal = Journal.open(path.parent, "abcd")
    journal.forbid("'x' is stateful, and so on")
    journal.close()
    with pytest.raises(ConfigError, match=rf"run '{run}' cannot be resumed: 'x' is stateful, and so on"):
        story.runner.run(pipeline, resume=run)


def test_on_the_command_line(story: Story) -> None:
    pipeline = story.pipeline([stream(), story.trap(40)], [("numbers", "trap"), ("trap", "file")])
    file = story.folder / "pipeline.json"
    file.write_text(json.dumps(pipeline.to_dict() | {"pipeline": {**pipeline.to_dict()["pipeline"], "folder": "kept"}}))

    def run(*options: str) -> Result:
        return CliRunner().invoke(main, ["run", str(file), "--local", "--json", *options])

    failed = run()
    assert failed.exit_code == 1
    found = re.search(r"to continue from there: --resume (\w+)", failed.stderr)
    assert found, failed.stderr
    asked = run("--resume")
    assert asked.exit_code == 2
    assert (
        f"--resume needs a run; these are in {story.folder / 'kept' / 'journals'}:\n  {found[1]}  story" in asked.stderr
    )
    unknown = run("--resume", "beef")
    assert (unknown.exit_code, "there is no journal of a run 'beef'" in unknown.stderr) == (2, True)
    story.gate.touch()
    done = run("--resume", found[1])
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert f"run {report['run']} goes on from {found[1]}: " in done.stderr
    assert story.lines() == list(range(60))
