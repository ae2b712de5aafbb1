"""The definition: what is read, what is refused, and how it is said."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from celerypipe import Message, Proc, Source, node
from celerypipe.definition.pipeline import Link, NodeDefinition, Pipeline, WarpConfiguration, json_schema
from celerypipe.errors import DefinitionError
from tests.unit.definition.sample import TUTORIAL, complaints, tutorial


class Numbers(Source):
    """Sends nothing; its definition is what matters here."""


class Double(Proc):
    """Sends nothing; its definition is what matters here."""


@node(queue="numbers", timeout=3.0)
def triple(message: Message, by: int = 3) -> Message:
    """Does not run here."""
    return message.with_payload(message.payload * by)


def test_the_tutorial_of_juturna_loads_and_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps(TUTORIAL))
    pipeline = Pipeline.load(file)
    assert pipeline.to_dict() == TUTORIAL
    assert Pipeline.from_dict(pipeline.to_dict(), tmp_path) == pipeline
    assert [(node.name, node.type, node.warped) for node in pipeline.nodes] == [
        ("0_src", "source", False),
        ("1_proc", "proc", True),
        ("2_dst", "sink", False),
    ]
    assert pipeline.node("1_proc").queue == "remote"
    assert [str(link) for link in pipeline.links] == ["0_src → 1_proc", "1_proc → 2_dst"]


def test_relative_folders_are_those_beside_the_file_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "pipeline.json").write_text(json.dumps(TUTORIAL))
    monkeypatch.chdir(tmp_path)
    pipeline = Pipeline.load("deep/pipeline.json")
    monkeypatch.chdir("/")
    assert pipeline.plugin_folders == (tmp_path / "deep" / "plugins",)
    assert pipeline.folder_path == tmp_path / "deep" / "pipe"


def test_a_pipeline_written_in_python_equals_the_one_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Pipeline(
        version="2.0.0",
        plugins=["./plugins"],
        name="test_mocked_pipeline",
        id="1234567890",
        folder=Path("pipe"),
        nodes=[
            NodeDefinition(name="0_src", type="source", mark="data_streamer"),
            NodeDefinition(
                name="1_proc",
                type="proc",
                mark="passthrough_identity",
                configuration={"delay": 2},
                warped=True,
                warp_configuration=WarpConfiguration(queue="remote", timeout=5),
            ),
            TUTORIAL["pipeline"]["nodes"][2],
        ],
        links=[("0_src", "1_proc"), Link(source="1_proc", target="2_dst")],
    )
    data = tutorial()
    data["pipeline"]["folder"] = "pipe"
    assert written == Pipeline.from_dict(data)


def test_a_class_or_a_function_may_stand_for_its_mark() -> None:
    source = NodeDefinition(name="numbers", mark=Numbers)
    proc = NodeDefinition(name="double", mark=Double)
    function = NodeDefinition(name="triple", mark=triple, warped=True)
    assert (source.type, source.mark) == ("source", f"{__name__}.Numbers")
    assert (proc.type, proc.mark) == ("proc", f"{__name__}.Double")
    assert (function.mark, function.queue, function.timeout) == (f"{__name__}.triple", "numbers", 3.0)
    pipeline = Pipeline(name="p", nodes=[source, proc, function], links=[("numbers", "double"), ("double", "triple")])
    assert json.loads(json.dumps(pipeline.to_dict()))["pipeline"]["nodes"][0]["mark"] == f"{__name__}.Numbers"


def test_what_the_definition_says_wins_over_what_the_function_says() -> None:
    function = NodeDefinition(name="t", mark=triple, warped=True, timeout=9, warp_configuration={"queue": "other"})
    assert (function.queue, function.timeout) == ("other", 9.0)
    here = NodeDefinition(name="t", mark=triple)
    assert here.timeout is None


def test_a_class_of_another_type_or_inside_a_function_is_refused() -> None:
    class Hidden(Proc):
        """Nobody can import it."""

    assert "not a sink" in complaints(NodeDefinition, name="d", type="sink", mark=Double)["nodes['d'].type"]
    assert "top of a module" in complaints(NodeDefinition, name="d", mark=Hidden)["nodes['d'].mark"]


@pytest.mark.parametrize(
    ("mark", "queue"),
    [
        ("tasks.gpu.DetectFaces", "gpu"),
        ("tasks.gpu.detect", "gpu"),
        ("tasks.gpu.Reader.Fast", "gpu"),
        ("gpu.Detect", "gpu"),
    ],
)
def test_the_queue_is_the_last_part_of_the_marks_module(mark: str, queue: str) -> None:
    assert NodeDefinition(name="n", type="proc", mark=mark, warped=True).queue == queue


def test_a_warped_node_with_a_short_mark_must_name_its_queue() -> None:
    place = "pipeline.nodes[1].warp_configuration.queue"
    assert "queue's name" in complaints(Pipeline.from_dict, tutorial(warp_configuration={}))[place]


def test_timeout_and_retries_may_stand_on_either_side_but_not_disagree() -> None:
    there = Pipeline.from_dict(tutorial(warp_configuration={"queue": "q", "timeout": 5, "retries": 2})).nodes[1]
    here = Pipeline.from_dict(tutorial(timeout=5, retries=2, warp_configuration={"queue": "q"})).nodes[1]
    both = Pipeline.from_dict(tutorial(timeout=5, warp_configuration={"queue": "q", "timeout": 5.0})).nodes[1]
    assert (there.timeout, there.retries) == (here.timeout, here.retries) == (5.0, 2)
    assert both.timeout == 5.0
    found = complaints(
        Pipeline.from_dict,
        tutorial(timeout=0.5, retries=0, warp_configuration={"queue": "q", "timeout": 1, "retries": 1}),
    )
    assert found["pipeline.nodes[1].warp_configuration.timeout"].startswith("is 1 here and 0.5 on the node")
    assert found["pipeline.nodes[1].warp_configuration.retries"].startswith("is 1 here and 0 on the node")


def test_all_complaints_come_at_once_each_with_its_place() -> None:
    data = tutorial(typ="proc", timeout="5", auto_dump="true", retries=1.5, sync=3)
    data["pipeline"]["nodes"][1]["warp_configuration"] |= {"grpc_host": "x", "timeout": True, "window": 0, "que": "a"}
    data["pipeline"]["nodes"] += [{"name": "0_src"}, 5]
    data["pipeline"]["links"] += [{"form": "a", "to": "b"}, "a → b"]
    data["pipeline"] |= {"deadline": -1, "schedule": "* * * * *"}
    data["plugin"] = []
    found = complaints(Pipeline.from_dict, data)
    node, warp = "pipeline.nodes[1]", "pipeline.nodes[1].warp_configuration"
    assert found[f"{node}.typ"] == "is no known key; did you mean 'type'?"
    assert found[f"{node}.timeout"] == 'must be a number, not "5"; write the number without quotes'
    assert found[f"{node}.auto_dump"] == 'must be true or false, not "true"; write true without quotes'
    assert found[f"{node}.retries"] == "must be a whole number, not 1.5"
    assert found[f"{node}.sync"] == "must be a text in quotes, not 3"
    assert found[f"{warp}.timeout"] == "must be a number, not true"
    assert found[f"{warp}.window"] == "must be greater than or equal to 1, not 0"
    assert found[f"{warp}.que"] == "is no known key; did you mean 'queue'?"
    assert '"queue"' in found[f"{warp}.grpc_host"]
    assert "celery -A celerypipe worker -Q" in found[f"{warp}.grpc_host"]
    assert "nodes[0]" in found["pipeline.nodes[3].name"]
    assert "is missing" in found["pipeline.nodes[3].type"]
    assert "is missing" in found["pipeline.nodes[3].mark"]
    assert found["pipeline.nodes[4]"] == "must be an object {...}, not 5"
    assert found["pipeline.links[2].form"] == "is no known key; did you mean 'from'?"
    assert found["pipeline.links[3]"].startswith("must be an object {...}")
    assert found["pipeline.deadline"] == "must be greater than 0, not -1"
    assert "not built yet" in found["pipeline.schedule"]
    assert found["plugin"] == "is no known key; did you mean 'plugins'?"
    assert len(found) == 18


def test_a_batch_has_a_size_and_a_wait_and_fits_the_window() -> None:
    def limits(**warp: Any) -> dict[str, Any]:
        return tutorial(warped=True, warp_configuration={"queue": "q", **warp})

    node = Pipeline.from_dict(limits(batch={"size": 8, "wait": 0.05})).nodes[1]
    assert (node.warp_configuration.batches.size, node.warp_configuration.batches.wait) == (8, 0.05)
    assert Pipeline.from_dict(limits()).nodes[1].warp_configuration.batches.size == 1
    assert Pipeline.from_dict(limits(batch={"size": 64}))
    for wrong, place in (({"size": 0}, "size"), ({"size": 2.5}, "size"), ({"wait": -1}, "wait"), ({"sise": 2}, "sise")):
        assert set(complaints(Pipeline.from_dict, limits(batch=wrong))) == {
            f"pipeline.nodes[1].warp_configuration.batch.{place}"
        }
    found = complaints(Pipeline.from_dict, limits(batch={"size": 65}))
    assert found == {
        "pipeline.nodes[1].warp_configuration.batch.size": "is 65, and only 64 messages are in flight; "
        'write "window": 65 or more, or a smaller batch'
    }
    assert Pipeline.from_dict(limits(batch={"size": 65}, window=65))


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "a..b", "a\nb", "a\x00", "a\\b", " a", "x" * 101])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    assert set(complaints(Pipeline.from_dict, tutorial(name=name))) == {"pipeline.nodes[1].name"}
    data = tutorial()
    data["pipeline"]["name"] = name
    assert set(complaints(Pipeline.from_dict, data)) == {"pipeline.name"}


@pytest.mark.parametrize("mark", ["", "../evil", "a/b", "a..b", ".a", "a.", "a b", "/etc/passwd"])
def test_a_mark_that_is_a_path_is_refused(mark: str) -> None:
    assert set(complaints(Pipeline.from_dict, tutorial(mark=mark))) == {"pipeline.nodes[1].mark"}


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "1"])
def test_a_timeout_is_a_positive_number_of_seconds(seconds: Any) -> None:
    assert set(complaints(Pipeline.from_dict, tutorial(timeout=seconds))) == {"pipeline.nodes[1].timeout"}


def test_half_a_second_is_half_a_second() -> None:
    node = Pipeline.from_dict(tutorial(warp_configuration={"queue": "q", "timeout": 0.5})).nodes[1]
    assert node.timeout == 0.5


def test_a_source_cannot_be_warped() -> None:
    data = tutorial()
    data["pipeline"]["nodes"][0] |= {"warped": True, "warp_configuration": {"queue": "q"}}
    assert "where its pipeline runs" in complaints(Pipeline.from_dict, data)["pipeline.nodes[0].warped"]


def test_what_is_written_needs_a_folder() -> None:
    data = tutorial(auto_dump=True)
    data["pipeline"]["telemetry"] = "telemetry.csv"
    assert Pipeline.from_dict(data).telemetry == "telemetry.csv"
    del data["pipeline"]["folder"]
    assert set(complaints(Pipeline.from_dict, data)) == {"pipeline.telemetry", "pipeline.nodes[1].auto_dump"}


def test_a_pipeline_is_frozen_and_survives_pickling() -> None:
    pipeline = Pipeline.from_dict(TUTORIAL)
    with pytest.raises(ValueError, match="frozen"):
        pipeline.name = "other"
    assert pickle.loads(pickle.dumps(pipeline)) == pipeline  # noqa: S301  # our own bytes


def test_the_schema_for_editors_accepts_what_loads_and_refuses_what_does_not() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    validator.validate(TUTORIAL)
    validator.validate(TUTORIAL | {"$schema": "celerypipe.schema.json"})
    assert Pipeline.from_dict(TUTORIAL | {"$schema": "celerypipe.schema.json"}) == Pipeline.from_dict(TUTORIAL)
    for wrong in (
        tutorial(typ="proc"),
        tutorial(type="prok"),
        tutorial(timeout="5"),
        tutorial(timeout=0),
        tutorial(warp_configuration={"grpc_host": "x"}),
        TUTORIAL | {"pipeline": {"name": "x", "nodes": []}},
    ):
        assert not validator.is_valid(wrong)
        with pytest.raises(DefinitionError):
            Pipeline.from_dict(wrong)


def test_every_key_in_the_schema_is_explained() -> None:
    schema = json_schema()
    shapes = [schema, *schema["$defs"].values()]
    silent = [key for shape in shapes for key, about in shape["properties"].items() if not about.get("description")]
    assert silent == []


TWINS = """
from celerypipe import Message, Proc, node

@node(version="1")
def read(value): return 1
first = read

@node(version="2")
def read(value): return 2

class Once(Proc):
    def update(self, message: Message) -> Message: return message
"""


def test_what_is_no_node_says_how_it_becomes_one() -> None:
    cures = {json.dumps: "dumps is a plain function; put @node above it", Path: "Path is no node; let it inherit from"}
    for mark, cure in cures.items():
        with pytest.raises(DefinitionError, match=rf"nodes\['a'\]\.mark: {cure}"):
            NodeDefinition(name="a", type="proc", mark=mark)


def test_a_mark_that_means_another_one_by_now_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twin_marks.py").write_text(TWINS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "twin_marks", raising=False)
    twins = importlib.import_module("twin_marks")
    with pytest.raises(DefinitionError, match="twin_marks has another read by now; rename one of them"):
        NodeDefinition(name="read", type="proc", mark=twins.first)
    assert NodeDefinition(name="read", type="proc", mark=twins.read).mark == "twin_marks.read"
    assert NodeDefinition(name="once", type="proc", mark=twins.Once).mark == "twin_marks.Once"


def test_a_copy_has_other_values_by_the_names_that_are_written() -> None:
    node = NodeDefinition(name="read", type="proc", mark="tasks.gpu.ReadText", warped=True, timeout=3.0)
    assert node.model_copy(update={"timeout": 9.0, "retries": 2}).timeout == 9.0
    assert node.model_copy(update={"retries": 2}).retries == 2
    assert Link(source="a", target="b").model_copy(update={"to": "c"}).target == "c"
