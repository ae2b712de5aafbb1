"""The graph: the order that links allow, and what is said about links that allow none."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celerypipe.definition.graph import Graph, complaints
from celerypipe.definition.pipeline import NodeDefinition, Pipeline
from celerypipe.errors import DefinitionError


def pipeline(nodes: str, *links: str) -> Pipeline:
    """``pipeline("+a b c-", "a b", "b c")``: + marks a source, - a sink."""
    types = {"+": "source", "-": "sink"}
    return Pipeline(
        name="p",
        nodes=[
            NodeDefinition(name=word.strip("+-"), type=types.get(word[0], types.get(word[-1], "proc")), mark="m.n")
            for word in nodes.split()
        ],
        links=[tuple(link.split()) for link in links],
    )


def said(found: Pipeline, fed: Sequence[str] = ()) -> dict[str, str]:
    """What is complained about, by place; the graph must be refused with the same."""
    with pytest.raises(DefinitionError) as raised:
        Graph.of(found, fed)
    assert list(raised.value.complaints) == complaints(found, fed)
    return {complaint.place: complaint.text for complaint in raised.value.complaints}


def test_each_node_comes_after_all_that_send_to_it() -> None:
    graph = Graph.of(pipeline("d- c b +a", "a b", "a c", "b d", "c d"))
    assert graph.order == ("a", "c", "b", "d")
    assert graph.layers == (("a",), ("c", "b"), ("d",))
    assert [link.source for link in graph.upstream("d")] == ["b", "c"]
    assert [link.target for link in graph.downstream("a")] == ["b", "c"]
    assert graph.ends == ("d",)
    assert graph.upstream("a") == graph.downstream("d") == ()


def test_a_link_to_nowhere_names_the_nearest_node() -> None:
    found = said(pipeline("+source sink-", "source sink", "source snik", "nothing sink"))
    assert found["pipeline.links[1].to"] == "there is no node 'snik'; did you mean 'sink'?"
    assert found["pipeline.links[2].from"] == "there is no node 'nothing'; there are source, sink"


def test_a_cycle_is_printed_as_a_path() -> None:
    found = said(pipeline("+s a b", "s a", "b a", "a b"))
    assert found["pipeline.links"].startswith("a → b → a is a cycle")


def test_a_node_that_sends_to_itself_is_a_cycle() -> None:
    assert said(pipeline("+s a", "s a", "a a"))["pipeline.links"].startswith("a → a is a cycle")


def test_every_cycle_is_printed() -> None:
    found = complaints(pipeline("+s a b c d", "s a", "a b", "b a", "s c", "c d", "d c"))
    assert [str(complaint).split(" is ")[0] for complaint in found] == [
        "pipeline.links: a → b → a",
        "pipeline.links: c → d → c",
    ]


def test_the_same_link_twice_is_refused() -> None:
    assert "links[0] again" in said(pipeline("+a b-", "a b", "a b"))["pipeline.links[1]"]


def test_a_sink_sends_nothing_and_a_source_receives_nothing() -> None:
    found = said(pipeline("+a b- c-", "a b", "b c", "b a"))
    assert "is a sink" in found["pipeline.links[1].from"]
    assert "is a source" in found["pipeline.links[2].to"]


def test_a_node_without_input_is_refused_unless_code_feeds_it() -> None:
    lonely = pipeline("a b-", "a b")
    assert "has no input" in said(lonely)["pipeline.nodes[0]"]
    assert Graph.of(lonely, fed=["a"]).order == ("a", "b")
    assert "did you mean 'a'" in "".join(
        str(complaint) for complaint in complaints(pipeline("+a b-", "a b"), ["aa", "a"])
    )
    assert "cannot be fed" in "".join(str(complaint) for complaint in complaints(pipeline("+a b-", "a b"), ["a"]))


def test_all_complaints_come_at_once() -> None:
    places = set(said(pipeline("+s a b c-", "s x", "a b", "b a", "c a", "a b")))
    assert places == {
        "pipeline.links[0].to",
        "pipeline.links[4]",
        "pipeline.links[3].from",
        "pipeline.nodes[3]",
        "pipeline.links",
    }


@settings(deadline=None)
@given(st.integers(2, 12), st.randoms(use_true_random=False))
def test_the_order_honours_every_link_whatever_the_links(count: int, chance: random.Random) -> None:
    names = [f"n{index}" for index in range(count)]
    shuffled = chance.sample(names, count)
    links = [
        f"{shuffled[left]} {shuffled[right]}"
        for left in range(count)
        for right in range(left + 1, count)
        if chance.random() < 0.4
    ]
    graph = Graph.of(pipeline(" ".join(names), *links), fed=names)
    assert sorted(graph.order) == sorted(names)
    assert all(graph.order.index(link.source) < graph.order.index(link.target) for link in graph.links)
    backwards = [f"{link.split()[1]} {link.split()[0]}" for link in links[:1]]
    if backwards:
        assert any(
            "is a cycle" in str(found) for found in complaints(pipeline(" ".join(names), *links, *backwards), names)
        )
