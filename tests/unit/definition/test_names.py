"""A name is accepted only where every place that uses it takes its letters; letters of all scripts are letters."""

from __future__ import annotations

from typing import Any

import pytest

from celerypipe import Pipeline
from celerypipe.definition.names import wrong_name, wrong_queue
from celerypipe.embedded.embedded import Embedded
from celerypipe.errors import ConfigError, DefinitionError
from celerypipe.worker.config import load_all

#: Names of nodes, pipelines and queues that are fine everywhere.
FINE = [
    "gpu",
    "Ünïcødé",
    "日本",
    "мир",
    "سلام",
    "हिन्दी",
    "🚀",
    "a:b",
    "a{b}",
    "a[bold]",
    "100%",
    "it's",
    "a@b",
    "_",
    "a.b-c",
]
ODD = [
    ("", "must not be empty"),
    (" gpu", "without spaces around it"),
    ("a/b", "leave out slashes"),
    ("a\\b", "leave out slashes"),
    ("..", "leave out slashes, '..' and a dot at either end"),
    (".hidden", "a dot at either end"),
    ("gpu.", "a dot at either end"),
    ("-Q", "would be taken for an option"),
    ("a\x06\x16b", "leave out control characters and others that are not seen"),
    ("a\x1b[31mb", r"'a\x1b[31mb' is no name; leave out control characters"),
    ("\u202eupg", r"'\u202eupg' is no name; leave out control characters and others that are not seen"),
    ("gpu\udcff", r"'gpu\udcff' is no name"),
    ("cafe\u0301", r"'cafe\u0301' has a letter in two pieces, and would be two names; write it as one: 'caf\xe9'"),
    ("x" * 101, "is 101 characters long; at most 100 are allowed"),
    ("日" * 70, "is 210 bytes long in UTF-8; at most 200 are allowed"),
]
ODD_QUEUES = [
    ("a,b", "leave out commas and spaces"),
    ("a b", "leave out commas and spaces"),
    ("unacked", "is the name of a key in Redis already"),
    ("_kombu.binding.x", "is the name of a key in Redis already"),
    ("celerypipe:runs", "is the name of a key in Redis already"),
    ("me@host.celery.pidbox", "is the name of a key in Redis already"),
]


def complaints(**changes: Any) -> list[tuple[str, str]]:
    node = {"name": "n", "type": "proc", "mark": "tasks.gpu.Detect"}
    body = {"name": "p", "nodes": [{**node, **each} for each in changes.pop("nodes", [{}])], **changes}
    with pytest.raises(DefinitionError) as caught:
        Pipeline.from_dict({"pipeline": body})
    return [(each.place, each.text) for each in caught.value.complaints]


@pytest.mark.parametrize("name", [*FINE, "with a space", "a,b"])
def test_names_of_all_scripts_are_names(name: str) -> None:
    nodes = [{"name": name, "type": "proc", "mark": "tasks.gpu.Detect"}]
    assert Pipeline(name=name, folder="x", nodes=nodes, links=[]).node(name).name == name
    assert wrong_name(name) == ""
    assert wrong_queue(name) == "" or name not in FINE


@pytest.mark.parametrize(("name", "complaint"), ODD)
def test_a_name_that_some_place_does_not_take_is_refused_in_every_kind(name: str, complaint: str) -> None:
    assert complaint in wrong_name(name)
    assert wrong_queue(name) != ""
    for place, changes in (("pipeline.name", {"name": name}), ("pipeline.nodes[0].name", {"nodes": [{"name": name}]})):
        assert [(at, complaint in text) for at, text in complaints(**changes)] == [(place, True)]


@pytest.mark.parametrize(("queue", "complaint"), [*ODD[1:], *ODD_QUEUES])
def test_a_queue_is_refused_with_the_same_words_wherever_it_is_named(queue: str, complaint: str, tmp_path: Any) -> None:
    ((place, text),) = complaints(nodes=[{"warped": True, "warp_configuration": {"queue": queue}}])
    assert place == "pipeline.nodes[0].warp_configuration.queue"
    assert text == wrong_queue(queue)
    if "spaces" not in text:
        assert complaint in text
    for name, make in (("-Q", lambda: load_all([queue], tmp_path)), ("queues", lambda: Embedded(queues=[queue]))):
        with pytest.raises(ConfigError) as caught:
            make()
        assert str(caught.value) == f"{name}: {wrong_queue(queue)}"


def test_a_queue_that_is_named_after_a_module_is_looked_at_too() -> None:
    ((place, text),) = complaints(nodes=[{"warped": True, "mark": "tasks.unacked.Detect"}])
    assert place == "pipeline.nodes[0].mark"
    assert text.startswith("names its queue after its module, and 'unacked' is the name of a key in Redis already")


def test_what_would_lie_in_one_place_of_the_folder_is_refused() -> None:
    twins = [{"name": "Out"}, {"name": "out"}]
    assert complaints(folder="x", nodes=twins) == [
        ("pipeline.nodes[1].name", "'out' is, but for its case, nodes[0] in the pipeline's folder; rename it")
    ]
    for name in ("dead_letters", "Journals", "config.json", "report.json"):
        assert complaints(folder="x", nodes=[{"name": name}])[0][0] == "pipeline.nodes[0].name"
        assert complaints(folder="x", telemetry=name)[0][0] == "pipeline.telemetry"
    assert complaints(folder="x", telemetry="N")[0][0] == "pipeline.nodes[0].name"
    nodes = [{"name": name, "type": "proc", "mark": "tasks.gpu.Detect"} for name in ("Out", "out", "journals")]
    assert len(Pipeline(name="p", nodes=nodes, links=[]).nodes) == 3, "without a folder they share none"
