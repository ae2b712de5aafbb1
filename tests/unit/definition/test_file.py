"""What is no definition: a file that cannot be one, and data of any other shape."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celerypipe.check.complaints import check, notes
from celerypipe.definition.draft import draft_of
from celerypipe.definition.pipeline import NodeDefinition, Pipeline, WarpConfiguration
from celerypipe.errors import DefinitionError

NODE_KEYS = [*NodeDefinition.model_fields, *WarpConfiguration.model_fields, "size", "from", "to", "x"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["proc", "a", "key:"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NODE_KEYS), inner, max_size=4),
    max_leaves=12,
)
SOUND = st.fixed_dictionaries(
    {
        "name": st.sampled_from("abc"),
        "type": st.sampled_from(["source", "proc", "sink"]),
        "mark": st.sampled_from(["console", "data_streamer", "nowhere.Node", "passthrough_identity"]),
    },
    optional={
        "configuration": st.dictionaries(st.sampled_from(["rate", "delay", "x"]), VALUES, max_size=2),
        "sync": st.sampled_from(["zip", "key:x", "within:1", "nonsense"]),
        "timeout": st.floats(0.1, 9),
    },
)
BROKEN = st.builds(lambda node, key, value: {**node, key: value}, SOUND, st.sampled_from(NODE_KEYS), VALUES)
NODES = st.lists(SOUND, min_size=1, max_size=3, unique_by=lambda node: node["name"]) | st.lists(SOUND | BROKEN | VALUES)
SOUND_LINKS = st.fixed_dictionaries({"from": st.sampled_from("abc"), "to": st.sampled_from("abc")})
LINKS = st.lists(SOUND_LINKS, max_size=4) | st.lists(SOUND_LINKS | VALUES, max_size=4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"version": 1,\n  oops}', "line 2, column 3"),
        (" \n", "is empty; a definition is"),
        ('{"a": 1, "a": 2}', "'a' is written twice"),
        ('{"a": NaN}', "NaN"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "is an object"),
        ("3", "is an object"),
    ],
)
def test_a_file_that_is_no_definition_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "pipeline.json"
    file.write_text(text)
    with pytest.raises(DefinitionError, match=said):
        Pipeline.load(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"nowhere\.json: there is no such file"):
        Pipeline.load(tmp_path / "nowhere.json")
    with pytest.raises(DefinitionError, match="cannot be read"):
        Pipeline.load(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"name": "\xe9"}')
    with pytest.raises(DefinitionError, match="UTF-8"):
        Pipeline.load(tmp_path / "latin.json")


def test_no_definition_makes_the_reader_stumble() -> None:
    for data in ({}, {"self": 1}, {"pipeline": None}, {"pipeline": {}}, {"pipeline": {"nodes": {}}}, {1: 2}):
        with pytest.raises(DefinitionError):
            Pipeline.from_dict(data)
    for nodes in ([], (), None, "abc", [None], [[]], [{1: 2}], [{"name": {}}], [{"name": None, "mark": 3}]):
        with pytest.raises(DefinitionError):
            Pipeline(name="p", nodes=nodes)


@settings(deadline=None)
@given(NODES | VALUES, LINKS | VALUES)
def test_whatever_is_written_is_either_a_pipeline_or_complained_about(nodes: Any, links: Any) -> None:
    definition = {"pipeline": {"name": "p", "nodes": nodes, "links": links}}
    draft = draft_of(definition, Path.cwd())
    assert draft.pipeline is None or all(complaint.text for complaint in check(draft.pipeline))
    with suppress(DefinitionError):
        pipeline = Pipeline.from_dict(definition)
        assert draft.complaints == ()
        assert draft.pipeline == pipeline
        assert Pipeline.from_dict(pipeline.to_dict()) == pipeline
        assert all(complaint.place and complaint.text for complaint in check(pipeline))
        notes(pipeline)
