"""Which part of a pipeline fills the result cache."""

from __future__ import annotations

import pytest

from celerypipe import ConfigError, Pipeline
from celerypipe.cache.warming import up_to_cached
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.runner.report import long_span, volume


def of(name: str, kind: str, **options: object) -> NodeDefinition:
    return NodeDefinition(name=name, type=kind, mark=f"tests.x.{name.title()}", **options)


def test_what_is_not_before_a_node_with_a_cache_does_not_run() -> None:
    nodes = [
        of("source", "source"),
        of("other", "source"),
        of("plain", "proc", auto_dump=True),
        of("cached", "proc", cache=True),
        of("after", "proc"),
        of("second", "proc", cache="1h", sync="zip"),
        of("last", "proc"),
        of("sink", "sink"),
    ]
    links = [
        ("source", "plain"),
        ("plain", "cached"),
        ("cached", "after"),
        ("after", "second"),
        ("cached", "second"),
        ("second", "last"),
        ("last", "sink"),
        ("other", "last"),
    ]
    part = up_to_cached(Pipeline(name="whole", folder="runs", nodes=nodes, links=links))
    assert [node.name for node in part.nodes] == ["source", "plain", "cached", "after", "second"]
    assert [str(link) for link in part.links] == [f"{first} → {then}" for first, then in links[:5]]
    assert part.folder_path is None
    assert not any(node.auto_dump for node in part.nodes)


def test_without_a_cache_there_is_nothing_to_fill() -> None:
    with pytest.raises(ConfigError, match="no node of pipeline 'plain' has a cache to fill"):
        up_to_cached(
            Pipeline(name="plain", nodes=[of("source", "source"), of("sink", "sink")], links=[("source", "sink")])
        )


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_400_000, "3.4 MB"), (5e12, "5000.0 GB")]
)
def test_bytes_are_written_with_a_unit_that_suits_them(size: float, text: str) -> None:
    assert volume(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0123, "12.3 ms"), (90, "90.00 s"), (600, "10.0 min"), (9000, "2.5 h")]
)
def test_long_times_are_written_in_minutes_and_hours(seconds: float, text: str) -> None:
    assert long_span(seconds) == text
