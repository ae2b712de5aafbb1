"""The limits of a warped node in its definition."""

from __future__ import annotations

from typing import Any

import pytest

from celerypipe import Proc
from celerypipe.definition.parts import PIPELINE_KEYS, home_of
from celerypipe.definition.pipeline import Body, NodeDefinition, Pipeline, WarpConfiguration
from celerypipe.definition.shape import Shape
from celerypipe.definition.warp import NODE_KEYS
from celerypipe.errors import DefinitionError
from tests.unit.definition.sample import complaints, tutorial


def test_no_complaint_shows_a_password_or_ends_in_something_else() -> None:
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    address = "redis://:hushed@host:6379/0"
    for value, shown in (
        ([address], "a list"),
        ({"url": address}, "a dict"),
        ("me:hushed@host", "a str"),
        (deep, "a list"),
    ):
        with pytest.raises(DefinitionError) as caught:
            NodeDefinition(name="n", type="proc", mark="tasks.gpu.Detect", timeout=value)
        assert f"must be a number, not {shown}" in str(caught.value)
        assert "hushed" not in str(caught.value)
    for key in ("redis://:hushed@host", 50_000 * "a", 50_000 * "a b"):
        with pytest.raises(DefinitionError) as caught:
            NodeDefinition(**{"name": "n", "type": "proc", "mark": "tasks.gpu.Detect", key: 1})
        assert "is no known key" in str(caught.value)
        assert "hushed" not in str(caught.value)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("limits", "place"),
    [
        ({"timeout": 1e300}, "warp_configuration.timeout: must be less than or equal to 4000000000"),
        ({"window": 65_537}, "warp_configuration.window: must be less than or equal to 65536, not 65537"),
        ({"parallel": 10**9}, "warp_configuration.parallel: must be less than or equal to 4096, not 1000000000"),
        ({"batch": {"size": 10**6}}, "warp_configuration.batch.size: must be less than or equal to 65536"),
    ],
)
def test_a_definition_asks_for_no_more_than_there_can_be(limits: dict[str, Any], place: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        NodeDefinition(name="n", type="proc", mark="tasks.gpu.Detect", warped=True, warp_configuration=limits)
    assert place in str(caught.value)


def test_a_key_in_the_wrong_place_is_told_where_it_belongs() -> None:
    data = tutorial(
        window=3, folder="x", warp_configuration={"queue": "q", "on_error": "skip", "batch": {"timeout": 1}}
    )
    data["pipeline"] |= {"retries": 3, "on_error": "skip", "plugins": []}
    data["nodes"] = []
    found = complaints(Pipeline.from_dict, data)
    node = "pipeline.nodes[1]"
    assert found == {
        f"{node}.window": 'must stand in "warp_configuration": {...}',
        f"{node}.folder": 'is a key of the whole pipeline; write it beside "nodes"',
        f"{node}.warp_configuration.on_error": 'is a key of the node; write it beside "warp_configuration"',
        f"{node}.warp_configuration.batch.timeout": 'is written beside "batch"',
        "pipeline.retries": 'is a key of a node; write it in one of "nodes"',
        "pipeline.on_error": 'is a key of a node; write it in one of "nodes"',
        "pipeline.plugins": 'is written beside "pipeline"',
        "nodes": 'must stand in "pipeline": {...}',
    }


def test_every_key_has_a_home() -> None:
    def written(shape: type[Shape]) -> set[str]:
        return {field.alias or name for name, field in shape.model_fields.items()}

    own = written(NodeDefinition) - {"name", "type", "mark", "configuration", "warp_configuration"}
    assert own == {*NODE_KEYS, "timeout", "retries"}
    assert written(Body) == {"name", "id", *PIPELINE_KEYS}
    assert all(home_of(key) for key in own | written(WarpConfiguration))
    assert not home_of("path")


def test_what_is_given_in_python_in_place_of_a_class_is_answered_with_what_to_give() -> None:
    class Thing:
        """No node."""

    def plain(value: int) -> int:
        return value

    given = {
        "Thing is no node; let it inherit from Source, Proc or Sink": Thing,
        "plain is a plain function; put @node above it": plain,
        "len is no node; write a function with def, put @node above it": len,
        "<lambda> is no node; write a function with def": lambda value: value,
        "is a node that is made already; give its class": Proc(),
        "must be a text in quotes, not 5": 5,
    }
    for text, mark in given.items():
        with pytest.raises(DefinitionError) as caught:
            NodeDefinition(name="n", type="proc", mark=mark)
        assert text in str(caught.value)


def test_an_environment_is_a_part_of_the_queue() -> None:
    def node(**limits: Any) -> NodeDefinition:
        return NodeDefinition(
            name="n",
            type="proc",
            mark="tasks.gpu.Detect",
            warped=True,
            warp_configuration={"environment": "asr", **limits},
        )

    assert node().queue == "gpu+asr"
    assert node(queue="cpu").queue == "cpu+asr"
    for limits, complaint in (
        ({"environment": "a+b"}, "warp_configuration.environment: 'a+b' is no name for an environment"),
        ({"queue": "gpu+tts"}, "the queue 'gpu+tts' names an environment already; leave out this one, or write 'gpu'"),
        ({"queue": "gpu+"}, "warp_configuration.queue: 'gpu+' is no name for a queue; '+' stands between one and its"),
        ({"on_no_worker": "local"}, 'warp_configuration.on_no_worker: "local" would run it here'),
    ):
        with pytest.raises(DefinitionError) as caught:
            node(**limits)
        assert complaint in str(caught.value)
