"""A message that cannot be joined costs itself, as ``on_error`` of the node says, and not the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from celerypipe import NodeDefinition, NodeFailed, Pipeline, Report, Runner
from celerypipe.runner.folder.letters import PLACE, DeadLetters
from tests.nodes import here, remote


class Joining:
    """Two sources of three messages each, which meet at ``both``; the last node writes what was joined to a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.letters = DeadLetters(folder / PLACE)
        self.said: list[str] = []

    def pipeline(self, mark: type = remote.Echo, left: str = "left", **both: Any) -> Pipeline:
        file = {"path": str(self.folder / "out.jsonl")}
        nodes = [
            NodeDefinition(name=left, mark=here.Labelled, configuration={"labels": [1, None, 3]}),
            NodeDefinition(name="right", mark=here.Labelled, configuration={"labels": [1, [2], 3]}),
            NodeDefinition(name="both", mark=mark, **both),
            NodeDefinition(name="file", type="sink", mark="json_lines", configuration=file),
        ]
        links = [(left, "both"), ("right", "both"), ("both", "file")]
        return Pipeline(name="joined", nodes=nodes, links=links, folder=self.folder)

    def run(self, mark: type = remote.Echo, **both: Any) -> Report:
        return self.runner.run(self.pipeline(mark, **both))

    @property
    def runner(self) -> Runner:
        return Runner(local=True, on_event=self.said.append)

    @property
    def pairs(self) -> list[list[Any]]:
        lines = (self.folder / "out.jsonl").read_text().splitlines()
        return sorted(sorted(part["payload"] for part in json.loads(line)) for line in lines)


WARPED = {"warped": True, "warp_configuration": {"queue": "nobody"}}


@pytest.mark.parametrize("where", [{}, WARPED, {"cache": True}], ids=["here", "warped", "cached"])
@pytest.mark.parametrize("on_error", ["skip", "dead_letter", "stop"])
def test_one_without_a_key_costs_itself(tmp_path: Path, where: dict[str, Any], on_error: str) -> None:
    joining = Joining(tmp_path)
    options = {"sync": "key:label", "on_error": on_error, "retries": 2, **where}
    if on_error == "stop":
        with pytest.raises(NodeFailed, match=r"both: a message from '\w+' has no usable meta field 'label' to join by"):
            joining.run(**options)
        return
    report = joining.run(**options)
    assert report.status == "done"
    assert joining.pairs == [["left 0", "right 0"], ["left 2", "right 2"]]
    both = report["both"]
    assert (both.failed, both.retried, both.unmatched) == ({"failed": 2}, 0, 0)
    assert (both.skipped, both.dead) == ((2, 0) if on_error == "skip" else (0, 2))


@pytest.mark.parametrize("where", [{}, WARPED], ids=["here", "warped"])
def test_a_replay_puts_it_into_the_join_once_more(tmp_path: Path, where: dict[str, Any]) -> None:
    joining = Joining(tmp_path)
    joining.run(sync="key:label", on_error="dead_letter")
    found = joining.letters.find().letters
    assert sorted((each.link, each.attempts, joining.letters.message(each).payload) for each in found) == [
        ("left", 0, "left 1"),
        ("right", 0, "right 1"),
    ]
    again = joining.pipeline(sync="key:label", on_error="dead_letter", **where)
    assert joining.runner.replay(again).status == "done"
    assert len(joining.letters.find().letters) == 2, "its key is still none"
    report = joining.runner.replay(joining.pipeline(left="other", sync="key:number", **where))
    assert report["both"].unmatched == 1
    assert len(joining.letters.find().letters) == 2, "nobody came for either"
    assert any("no node 'left' sends to 'both' here; it is kept" in line for line in joining.said)
    assert any("both got no message to join it with; it is kept" in line for line in joining.said)
    joining.runner.replay(joining.pipeline(sync="key:number", **where))
    assert joining.letters.find().letters == []
    assert ["left 1", "right 1"] in joining.pairs


@pytest.mark.parametrize("mark", [here.Torn, here.Greedy, here.Shapeless])
def test_one_that_is_too_much_for_next_batch_costs_itself(tmp_path: Path, mark: type) -> None:
    joining = Joining(tmp_path)
    report = joining.run(mark, on_error="dead_letter")
    assert report["both"].dead == 2
    assert joining.pairs == [["left 0", "right 0"], ["left 2", "right 2"]]
    for letter in joining.letters.find().letters:
        assert letter.text.startswith(mark.says)  # type: ignore[attr-defined]
        assert joining.letters.message(letter).meta["number"] == 1
    with pytest.raises(NodeFailed, match=r"both: \w+: "):
        joining.run(mark)
