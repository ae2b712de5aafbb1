"""All that can be said before a run: complaints that stop it, notes that do not."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check.complaints import absences, check, notes, require
from celerypipe.definition.pipeline import NodeDefinition, Pipeline
from celerypipe.errors import DefinitionError
from tests.unit.definition.sample import complaints

MODULE = """
from __future__ import annotations
from pathlib import Path
from typing import Literal
from celerypipe import Proc, node

class Plain(Proc):
    '''Takes nothing.'''

class Eager(Proc):
    '''Takes several.'''
    def update_batch(self, messages): return messages

class Counting(Proc):
    '''Remembers.'''
    stateful = True

class Remembering(Counting):
    '''Says what.'''
    def snapshot(self): return 1
    def restore(self, state): ...

class Awaiting(Proc):
    async def update(self, message): ...

@node
async def awaiting(value): ...

@node
def suffixed(
    value, suffix: str = "", rate: float = 1, counts: "dict[str, int | None] | None" = None,
    mode: Literal["fast", "exact"] = None, where: Path = ".", what: Unheard = 1,
): ...

class Picky(Proc):
    '''Joins for itself.'''
    def __init__(self, size: int): ...
    def next_batch(self, sources): ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module of nodes, a new one for each test."""
    name = f"checked_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def around(mark: str, plugins: tuple[Path, ...] = (), **node: Any) -> Pipeline:
    """A pipeline of three nodes; the middle one is given."""
    if node.get("warped"):
        node = {"warp_configuration": {"queue": "q", "timeout": 5}} | node
    return Pipeline(
        name="p",
        plugins=plugins,
        nodes=[
            {"name": "first", "type": "source", "mark": "data_streamer"},
            {"name": "middle", "type": "proc", "mark": mark, **node},
            {"name": "last", "type": "sink", "mark": "console"},
        ],
        links=[("first", "middle"), ("middle", "last")],
    )


def said(pipeline: Pipeline, **options: Any) -> dict[str, str]:
    """The complaints by place, without the ``pipeline.nodes[1].`` of the middle node."""
    found = check(pipeline, **options)
    if found:
        with pytest.raises(DefinitionError) as raised:
            require(pipeline, **options)
        assert list(raised.value.complaints) == found
    else:
        require(pipeline, **options)
    return {complaint.place.removeprefix("pipeline.nodes[1]."): complaint.text for complaint in found}


def test_a_sound_pipeline_has_nothing_said_about_it() -> None:
    pipeline = around("passthrough_identity", configuration={"delay": 1}, warped=True)
    assert said(pipeline) == {}
    assert notes(pipeline) == []


def test_links_marks_and_arguments_are_all_said_at_once() -> None:
    pipeline = Pipeline(
        name="p",
        nodes=[
            {"name": "first", "type": "source", "mark": "data_steamer"},
            {"name": "middle", "type": "proc", "mark": "passthrough_identity", "configuration": {"dealy": 1}},
            {"name": "last", "type": "sink", "mark": "json_lines", "sync": "zap"},
        ],
        links=[("first", "middle"), ("middle", "middle"), ("middle", "lost")],
    )
    found = check(pipeline)
    assert [complaint.place for complaint in found] == [
        "pipeline.links[2].to",
        "pipeline.links",
        "pipeline.nodes[0].mark",
        "pipeline.nodes[1].configuration",
        "pipeline.nodes[2].sync",
        "pipeline.nodes[2].configuration",
    ]
    text = "\n".join(map(str, found))
    assert "did you mean 'data_streamer'" in text
    assert "did you mean 'delay'" in text
    assert "'path' of json_lines is missing" in text


def test_the_module_of_a_warped_node_is_never_imported(module: str) -> None:
    assert said(around("nowhere_at_all.gpu.Plain", warped=True)) == {}
    strange = around(f"{module}.Plain", warped=True, configuration={"anything": 1})
    read = said(strange)
    assert "has no argument 'anything'" in read["configuration"]
    assert module not in sys.modules
    assert said(strange, local=True) == read
    assert module in sys.modules


BATCH = "warp_configuration.batch.size", "update_batch"
SLOTS = "warp_configuration.parallel", "one place"
#: What a node is in a definition, and where that is complained about: with a class that is here, or its source alone.
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"mark": "Plain", "configuration": {"sized": 1}}, "configuration", "has no argument 'sized'"),
    ({"mark": "Picky", "configuration": {"siz": 1}}, "configuration", "did you mean 'size'?"),
    ({"mark": "Picky"}, "configuration", "'size' of"),
    ({"mark": "Picky", "configuration": {"size": "5"}}, "configuration.size", "write the number without quotes"),
    ({"mark": "Picky", "configuration": {"size": [1]}}, "configuration.size", "must be a whole number, not a list"),
    ({"mark": "suffixed", "configuration": {"suffix": 5}}, "configuration.suffix", "write it in quotes"),
    ({"mark": "suffixed", "configuration": {"counts": {"a": "b"}}}, "configuration.counts", "\"counts['a']\" must be"),
    ({"mark": "suffixed", "configuration": {"mode": "fst"}}, "configuration.mode", "did you mean 'fast'?"),
    ({"mark": "suffixed", "configuration": {"rate": "$JT_ENV_WORD"}}, "configuration.rate", "is no float"),
    ({"mark": "Plain", "configuration": {"retries": 1}}, "configuration.retries", 'write it beside "configuration"'),
    ({"mark": "Plain", "configuration": {"queue": "q"}}, "configuration.queue", 'must stand in "warp_configuration"'),
    ({"mark": "Awaiting"}, "mark", "update() is async"),
    ({"mark": "awaiting"}, "mark", "awaiting() is async"),
    ({"mark": "Remembering", "cache": True}, "cache", "is stateful"),
    ({"mark": "Counting"}, "warped", "snapshot()"),
    ({"mark": "Plain", "warp_configuration": {"queue": "q", "batch": {"size": 2}}}, *BATCH),
    ({"mark": "Remembering", "warp_configuration": {"queue": "q", "parallel": 2}}, *SLOTS),
]


@pytest.mark.parametrize(("node", "place", "text"), WRONG, ids=str)
def test_what_a_class_says_is_read_where_it_is_not_imported(
    module: str, node: dict[str, Any], place: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD", "fast")
    node = {**node, "mark": f"{module}.{node['mark']}"}
    node["warped"] = True
    warped = said(around(**node))
    assert module not in sys.modules
    assert list(warped) == [place]
    assert text in warped[place]
    assert said(around(**node), local=True) == warped


def test_the_type_of_a_class_is_read_too(module: str) -> None:
    found = said(around(f"{module}.Plain", warped=True, type="sink"))
    assert found["type"] == f"{module}.Plain is a proc, not a sink; write proc"


def test_a_value_fits_where_it_is_what_the_annotation_says(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBER", "5")
    for configuration in (
        {"suffix": "a", "rate": 1, "counts": {"a": 1, "b": None}, "mode": "fast"},
        {"rate": "$JT_ENV_NUMBER", "mode": None, "suffix": "$JT_ENV_NUMBER"},
        {"counts": {}, "where": "here", "what": [1]},
    ):
        for warped in (True, False):
            assert said(around(f"{module}.suffixed", configuration=configuration, warped=warped)) == {}


def test_a_warped_plugin_is_not_imported_either(tmp_path: Path) -> None:
    home = tmp_path / "nodes" / "proc" / "_heavy"
    home.mkdir(parents=True)
    (home / "heavy.py").write_text("import not_there_at_all\n")
    assert said(around("heavy", (tmp_path,), warped=True)) == {}
    assert "not_there_at_all" in said(around("heavy", (tmp_path,)))["mark"]


def test_a_local_node_whose_class_is_of_another_type_is_refused(module: str) -> None:
    pipeline = Pipeline(
        name="p",
        nodes=[
            {"name": "a", "type": "source", "mark": "data_streamer"},
            {"name": "b", "type": "sink", "mark": f"{module}.Plain"},
        ],
        links=[("a", "b")],
    )
    assert said(pipeline)["type"] == f"{module}.Plain is a proc, not a sink; write proc"


def test_a_batch_is_for_a_node_that_takes_several(module: str) -> None:
    batch = {"queue": "q", "timeout": 5, "batch": {"size": 8}}
    found = said(around(f"{module}.Plain", warped=True, warp_configuration=batch), local=True)
    assert found == {
        "warp_configuration.batch.size": f"is 8, but {module}.Plain has no update_batch(messages); "
        "write one, or leave batch out"
    }
    assert "update_batch" in str(said(around("passthrough_identity", warped=True, warp_configuration=batch)))
    assert said(around(f"{module}.Eager", warped=True, warp_configuration=batch), local=True) == {}
    assert said(around(f"{module}.Plain", warp_configuration=batch)) == {}, "here it takes one at a time"
    one = {**batch, "batch": {"size": 1, "wait": 1.0}}
    assert said(around(f"{module}.Plain", warped=True, warp_configuration=one), local=True) == {}


def test_a_stateful_node_is_warped_with_snapshots_or_pinned(module: str) -> None:
    assert said(around(f"{module}.Counting")) == {}
    there: dict[str, Any] = {"warped": True}
    assert "snapshot() and restore(state)" in said(around(f"{module}.Counting", **there), local=True)["warped"]
    assert said(around(f"{module}.Remembering", **there), local=True) == {}
    pinned = {**there, "warp_configuration": {"queue": "q", "timeout": 5, "pinned": True}}
    assert said(around(f"{module}.Counting", **pinned), local=True) == {}
    assert "stateful" in said(around(f"{module}.Plain", **pinned), local=True)["warp_configuration.pinned"]
    many = {**there, "warp_configuration": {"queue": "q", "timeout": 5, "parallel": 2, "on_no_worker": "local"}}
    found = said(around(f"{module}.Remembering", **many), local=True)
    assert set(found) == {"warp_configuration.parallel", "warp_configuration.on_no_worker"}


@pytest.mark.parametrize("warped", [True, False])
def test_what_main_has_is_in_no_file_that_another_process_imports(warped: bool) -> None:
    found = said(around("__main__.Mine", warped=warped))["mark"]
    assert re.match(
        r"'?__main__.Mine'?: __main__ is whatever was started, here \w+, and has no Mine; write the module", found
    )


@pytest.mark.parametrize(
    "sync", ["passthrough", "local", "zip", "latest", "key:page", "key:a:b", "within:0.5", "within:2", None]
)
def test_every_way_to_join_is_known(module: str, sync: str | None) -> None:
    assert said(around(f"{module}.Picky", configuration={"size": 1}, sync=sync)) == {}


@pytest.mark.parametrize(
    ("sync", "text"),
    [
        ("", "is no way to join"),
        ("zipp", "did you mean 'zip'"),
        ("keys:page", "did you mean 'key'"),
        ("key", "key:<meta field>"),
        ("key:", "key:<meta field>"),
        ("zip:3", "is no way to join"),
        ("within", "within:<seconds>"),
        ("within:soon", "within:<seconds>"),
        ("within:-1", "within:<seconds>"),
        ("within:nan", "within:<seconds>"),
    ],
)
def test_a_way_to_join_that_is_none_is_refused(sync: str, text: str) -> None:
    assert text in said(around("passthrough_identity", sync=sync))["sync"]


def test_a_warped_node_cannot_join_by_its_own_next_batch() -> None:
    assert "runs elsewhere" in said(around("passthrough_identity", warped=True, sync="local"))["sync"]


def test_missing_variables_are_said_before_the_run_and_the_present_ones_stay_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = around("passthrough_identity", configuration={"delay": "$JT_ENV_DELAY"})
    monkeypatch.delenv("DELAY", raising=False)
    assert "'DELAY'" in said(pipeline)["configuration.delay"]
    monkeypatch.setenv("DELAY", "0.5")
    assert said(pipeline) == {}
    monkeypatch.setenv("DELAY", "s3cret")
    assert "is no float" in said(pipeline)["configuration.delay"]
    assert "s3cret" not in str(said(pipeline))


def test_a_configuration_that_cannot_travel_is_refused_only_where_it_must_travel(module: str) -> None:
    unknown = {"size": object()}
    assert said(around(f"{module}.Picky", configuration=unknown)) == {}
    assert "cannot travel" in said(around(f"{module}.Picky", configuration=unknown, warped=True))["configuration"]
    array = {"size": np.arange(3)}
    assert said(around(f"{module}.Picky", configuration=array, warped=True)) == {}


def test_a_pipeline_fed_from_code_needs_no_source() -> None:
    pipeline = Pipeline(name="p", nodes=[{"name": "only", "type": "proc", "mark": "passthrough_identity"}])
    assert "no input" in said(pipeline)["pipeline.nodes[0]"]
    assert said(pipeline, fed=["only"]) == {}


def test_notes_tell_what_looks_unintended(tmp_path: Path, module: str) -> None:
    home = tmp_path / "nodes" / "proc" / "_heavy"
    home.mkdir(parents=True)
    (home / "heavy.py").write_text("from celerypipe import Proc\nclass Heavy(Proc): ...\n")
    (home / "requirements.txt").write_text(
        "# ours\nnumpy>=1\nnot-there-at-all==3\n-r more.txt\nx; python_version<'3'\n"
    )
    pipeline = Pipeline(
        name="p",
        plugins=[tmp_path, tmp_path / "gone"],
        nodes=[
            {"name": "a", "type": "source", "mark": "data_streamer"},
            {
                "name": "b",
                "type": "proc",
                "mark": "passthru_identity",
                "warped": True,
                "configuration": {"timeout": 5, "other": 1},
                "warp_configuration": {"queue": "q"},
            },
            {"name": "c", "type": "proc", "mark": "heavy", "sync": "local"},
        ],
        links=[("a", "b"), ("b", "c")],
    )
    assert [str(tmp_path / "gone") in text for text in absences(pipeline, Catalogue(pipeline.plugin_folders))] == [True]
    found = notes(pipeline)
    assert [note.partition(": ")[0] for note in found] == [
        "pipeline.nodes[1].configuration.timeout",
        "pipeline.nodes[1]",
        "pipeline.nodes[1].mark",
        "pipeline.nodes[2]",
        "pipeline.nodes[2].sync",
        "pipeline.nodes[2].mark",
    ]
    assert "which is not here, has one of that name; else it is a key of the node" in found[0]
    assert "no timeout" in found[1]
    assert "did you mean 'passthrough_identity'" in found[2]
    assert "goes nowhere" in found[3]
    assert "passes" in found[4] or "pass as they come" in found[4]
    assert "needs not-there-at-all==3 (not installed); pip install -r" in found[5]
    assert check(pipeline) == []


def test_only_a_proc_without_a_memory_has_results_to_keep(module: str) -> None:
    for kind in ("source", "sink"):
        found = complaints(NodeDefinition, name="n", type=kind, mark="m", cache=True)
        assert found["nodes['n'].cache"].startswith("is for a proc")
        assert NodeDefinition(name="n", type=kind, mark="m", cache=False).cache is None
    for mark in ("Counting", "Remembering"):
        assert "stateful" in said(around(f"{module}.{mark}", cache="1h"))["cache"]
        assert "cache" not in said(around(f"{module}.{mark}", cache=False))
    assert said(around(f"{module}.Plain", cache="1h")) == {}


def test_no_two_nodes_have_one_file_in_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACES_OUT", str(tmp_path / "out"))
    (tmp_path / "link").symlink_to(tmp_path / "out")

    def complained(first: dict[str, Any], *others: dict[str, Any]) -> list[str]:
        data = [{"mark": "json_lines", "name": str(number), **node} for number, node in enumerate((first, *others))]
        nodes = [{**node, "type": node.get("type", "sink")} for node in data]
        found = check(Pipeline(name="p", nodes=nodes, links=[]))
        return [str(each) for each in found if ".configuration" in each.place]

    def file(path: str, **more: Any) -> dict[str, Any]:
        return {"configuration": {"path": path, **more}}

    one, same = str(tmp_path / "out"), (str(tmp_path / "link"), str(tmp_path / "." / "out"), "$JT_ENV_PLACES_OUT")
    for path in same:
        (text,) = complained(file(one), file(path))
        assert text.startswith("pipeline.nodes[1].configuration.path: is what '0' writes too; write another file, or")
        assert complained(file(one, append=True), file(path))
        assert complained(file(one), file(path, append=True))
        assert not complained(file(one, append=True), file(path, append=True))
        (text,) = complained({**file(one), "type": "sink"}, {**file(path), "type": "source"})
        assert text == "pipeline.nodes[0].configuration.path: is what '1' reads; write another file"
    assert not complained(file(one), file(str(tmp_path / "other")))
    assert not complained(file("/dev/null"), file("/dev/null"))
    there = {"warped": True, "warp_configuration": {"queue": "q", "timeout": 5}}
    for more, count in (({}, 1), ({"append": True}, 0)):
        node = {"name": "n", "type": "sink", "mark": "json_lines", **file(one, **more), **there}
        said = [text for text in notes(Pipeline(name="p", nodes=[node], links=[])) if "empties its file" in text]
        assert len(said) == count
