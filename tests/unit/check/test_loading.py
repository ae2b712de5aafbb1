"""A definition file with mistakes of all kinds: they come at once, and none that only follows from another."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celerypipe.check.complaints import check
from celerypipe.check.loading import load
from celerypipe.definition.draft import draft_of
from celerypipe.errors import DefinitionError

SOUND: dict[str, Any] = {
    "version": "1",
    "plugins": ["plugins"],
    "pipeline": {
        "name": "p",
        "folder": "out",
        "telemetry": "times.csv",
        "deadline": 60,
        "nodes": [
            {"name": "first", "type": "source", "mark": "data_streamer", "configuration": {"count": 3}},
            {
                "name": "middle",
                "type": "proc",
                "mark": "passthrough_identity",
                "configuration": {"delay": 1.0},
                "timeout": 5,
                "retries": 1,
                "on_error": "dead_letter",
                "sync": "zip",
                "auto_dump": True,
                "cache": {"ttl": "1h"},
                "warped": True,
                "warp_configuration": {"queue": "q", "window": 128, "batch": {"size": 100}, "pinned": False},
            },
            {"name": "last", "type": "sink", "mark": "json_lines", "configuration": {"path": "out.jsonl"}},
        ],
        "links": [{"from": "first", "to": "middle"}, {"from": "middle", "to": "last"}],
    },
}
#: What ``SOUND`` is complained about even so; a built-in takes no batches.
USUAL = {"pipeline.nodes[1].warp_configuration.batch.size"}


def said(definition: Any, place: Path) -> dict[str, str]:
    """What is complained about, by place."""
    file = place / "pipeline.json"
    file.write_text(json.dumps(definition))
    try:
        found = check(load(file))
    except DefinitionError as error:
        found = list(error.complaints)
    return {complaint.place: complaint.text for complaint in found}


def changed(*path: str | int, value: Any) -> Callable[[Any], None]:
    def change(definition: Any) -> None:
        within = definition
        for part in path[:-1]:
            within = within[part]
        within[path[-1]] = value

    return change


NODES = ("pipeline", "nodes")
#: One mistake each, and where it is complained about.
MISTAKES: dict[str, Callable[[Any], None]] = {
    "plugin": changed("plugin", value=[]),
    "pipeline.nodse": changed("pipeline", "nodse", value=1),
    "pipeline.deadline": changed("pipeline", "deadline", value="soon"),
    "pipeline.nodes[0].tmeout": changed(*NODES, 0, "tmeout", value=3),
    "pipeline.nodes[0].configuration": changed(*NODES, 0, "configuration", value={"rat": 1}),
    "pipeline.nodes[1].wraped": changed(*NODES, 1, "wraped", value=True),
    "pipeline.nodes[1].retries": changed(*NODES, 1, "retries", value="2"),
    "pipeline.nodes[1].sync": changed(*NODES, 1, "sync", value="zap"),
    "pipeline.nodes[1].cache.ttl": changed(*NODES, 1, "cache", "ttl", value="long"),
    "pipeline.nodes[1].configuration": changed(*NODES, 1, "configuration", value={"dealy": 1}),
    "pipeline.nodes[1].warp_configuration.timeout": changed(*NODES, 1, "warp_configuration", "timeout", value=6),
    "pipeline.nodes[2].mark": changed(*NODES, 2, "mark", value="json_line"),
    "pipeline.nodes[2].cache": changed(*NODES, 2, "cache", value=True),
    "pipeline.links[2].to": lambda definition: definition["pipeline"]["links"].append({"from": "first", "to": "zz"}),
    "pipeline.links": lambda definition: definition["pipeline"]["links"].append({"from": "middle", "to": "middle"}),
    "pipeline.links[0].full": changed("pipeline", "links", 0, "full", value="drip"),
}


def test_mistakes_of_all_kinds_come_at_once(tmp_path: Path) -> None:
    definition = copy.deepcopy(SOUND)
    for change in MISTAKES.values():
        change(definition)
    assert set(said(definition, tmp_path)) - USUAL == set(MISTAKES)


@pytest.mark.parametrize("one", MISTAKES)
def test_a_mistake_hides_no_other_and_brings_none_along(one: str, tmp_path: Path) -> None:
    for other in itertools.dropwhile(lambda each: each != one, MISTAKES):  # those before it have met this one
        definition = copy.deepcopy(SOUND)
        for place, change in MISTAKES.items():
            if place in (one, other):
                change(definition)
        assert set(said(definition, tmp_path)) - USUAL == {one, other}


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """All places in a definition, from the outside in."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def named(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


@pytest.mark.parametrize("wrong", [5, "5", "", "x y/", [], {}, [1], None, True, {"a": 1}, "absent"], ids=repr)
def test_nothing_is_complained_about_that_only_follows(wrong: Any, tmp_path: Path) -> None:
    for path in places(SOUND):
        definition = copy.deepcopy(SOUND)
        if wrong == "absent":
            if isinstance(path[-1], int):
                continue
            within = definition
            for part in path[:-1]:
                within = within[part]
            del within[path[-1]]
        else:
            changed(*path, value=wrong)(definition)
        own = named(path)
        for place, text in said(definition, tmp_path).items():
            follows = place not in USUAL and not place.startswith(own) and not own.startswith(place)
            assert not follows or means_another(path, wrong), f"{own} = {wrong!r}: {place}: {text}"


def means_another(path: tuple[str | int, ...], wrong: Any) -> bool:
    """Is it a value that the place can have, which contradicts the rest: a name that no link has, no folder?"""
    if path[-1] in ("name", "mark", "from", "to"):
        return isinstance(wrong, str) and wrong not in ("", "absent")
    return wrong in (None, [], "absent", True, 5) and path[-1] in ("warped", "links", "folder", "window", "queue")


@pytest.mark.parametrize("end", ["from", "to"])
def test_an_end_of_a_link_is_not_empty(end: str, tmp_path: Path) -> None:
    definition = copy.deepcopy(SOUND)
    definition["pipeline"]["links"][0][end] = ""
    found = said(definition, tmp_path)
    assert found[f"pipeline.links[0].{end}"] == "must not be empty; write the name of a node"


def test_a_name_that_cannot_be_read_is_none_that_links_miss(tmp_path: Path) -> None:
    for wrong, links in itertools.product((5, None, "a/b"), ("last", "a/b", "zz")):
        definition = copy.deepcopy(SOUND)
        definition["pipeline"]["nodes"][2]["name"] = wrong
        definition["pipeline"]["links"][1]["to"] = links
        found = said(definition, tmp_path)
        missed = "pipeline.links[1].to" in found
        assert "pipeline.nodes[2].name" in found
        assert missed == (wrong == "a/b" != links)


def test_what_cannot_be_read_in_the_large_is_one_complaint(tmp_path: Path) -> None:
    for wrong in (
        5,
        {"pipeline": 1},
        {"pipeline": {"name": "p", "nodes": 7}},
        {"pipeline": {"name": "p", "nodes": [3]}},
    ):
        assert len(said(wrong, tmp_path)) == 1


def test_what_is_nested_deeply_is_no_mistake(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    definition = copy.deepcopy(SOUND)
    definition["pipeline"]["nodes"][0]["configuration"] = {"items": [deep], "rat": 1}
    definition["pipeline"]["nodes"][1]["timeout"] = "[" * 100_000
    wanted = {"pipeline.nodes[0].configuration", "pipeline.nodes[1].timeout"}
    before = copy.deepcopy(definition)
    assert set(said(definition, tmp_path)) - USUAL == wanted
    assert draft_of(definition, tmp_path).complaints
    assert definition == before


def test_plugin_folders_out_of_reach_are_not_looked_into(tmp_path: Path) -> None:
    definition = copy.deepcopy(SOUND)
    definition["plugins"] = ["/elsewhere/plugins"]
    definition["pipeline"]["nodes"][2]["mark"] = "of_a_plugin"
    definition["pipeline"]["nodes"][0]["configuration"] = {"rat": 1}
    assert set(said(definition, tmp_path)) - USUAL == {"plugins[0]", "pipeline.nodes[0].configuration"}
