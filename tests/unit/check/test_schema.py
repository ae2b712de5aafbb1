"""The JSON Schema for editors: what each known node takes, and nothing about the others."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check.complaints import check
from celerypipe.check.schema import schema_with_nodes
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import ConfigError
from tests.servers import ROOT, Write


def validator(*plugins: Path) -> jsonschema.Draft202012Validator:
    refused: list[ConfigError] = []
    schema = schema_with_nodes(Catalogue(plugins), refused)
    assert refused == []
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@cache
def built_in() -> jsonschema.Draft202012Validator:
    """With the nodes of celerypipe alone; not made where the tests are collected, which each of the processes does."""
    return validator()


def definition(type: str, mark: str, **configuration: Any) -> dict[str, Any]:
    node = {"name": "n", "type": type, "mark": mark, "configuration": configuration}
    return {"pipeline": {"name": "p", "nodes": [node]}}


def wrong(found: dict[str, Any], valid: jsonschema.Draft202012Validator | None = None) -> list[str]:
    """Where it is wrong, below the node."""
    places = [list(_deepest(error).absolute_path) for error in (valid or built_in()).iter_errors(found)]
    assert all(place[:3] == ["pipeline", "nodes", 0] for place in places)
    return ["/".join(map(str, place[3:])) for place in places]


def _deepest(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """Of several that might have been meant the one that fits best, as editors show it."""
    return max([error, *map(_deepest, error.context or ())], key=lambda each: len(each.absolute_path))


@pytest.mark.parametrize("file", sorted(ROOT.glob("examples/*/*.json")), ids=lambda file: file.parent.name)
def test_the_examples_are_valid(file: Path) -> None:
    built_in().validate(json.loads(file.read_text()))


def test_every_argument_of_a_built_in_node_is_explained_and_its_default_is_valid() -> None:
    for each in built_in().schema["$defs"]["NodeDefinition"]["allOf"]:
        about = {key: value["const"] for key, value in each["if"]["properties"].items()}
        configuration = each["then"]["properties"]["configuration"]
        arguments = configuration["properties"]
        assert configuration["description"]
        assert [name for name, argument in arguments.items() if not argument.get("description")] == [], about
        defaults = {name: argument["default"] for name, argument in arguments.items() if "default" in argument}
        required = dict.fromkeys(configuration.get("required", ()), "a text")
        assert wrong(definition(**about, **defaults, **required)) == []


@pytest.mark.parametrize(
    ("found", "place"),
    [
        (definition("proc", "vad", threshold="high"), "configuration/threshold"),
        (definition("proc", "vad", treshold=0.5), "configuration"),
        (definition("source", "data_streamer", count=1.5), "configuration/count"),
        (definition("source", "files", paths=["a", 1]), "configuration/paths/1"),
        (definition("source", "files", paths="a"), "configuration/paths"),
        (definition("sink", "console", stream="stdut"), "configuration/stream"),
        (definition("sink", "json_lines", path="a", append="yes"), "configuration/append"),
        (definition("sink", "json_lines"), "configuration"),
    ],
)
def test_what_a_built_in_node_does_not_take_is_refused_where_it_stands(found: dict[str, Any], place: str) -> None:
    assert wrong(found) == [place]
    # It is what is said before a run, too.
    assert check(Pipeline.from_dict(found), Catalogue())


def test_a_node_that_needs_arguments_needs_a_configuration() -> None:
    found = definition("source", "json_lines")
    del found["pipeline"]["nodes"][0]["configuration"]
    assert wrong(found) == [""]


def test_a_variable_stands_for_any_value_and_another_mark_takes_anything() -> None:
    for text in ("$JT_ENV_RATE", "${RATE}", "${RATE:-16000}"):
        assert wrong(definition("proc", "resample", rate=text, channels=text)) == []
        assert wrong(definition("sink", "console", stream=text, width=text)) == []
        assert wrong(definition("source", "files", paths=text)) == []
        assert wrong(definition("source", "files", paths=[text])) == []
        assert wrong(definition("sink", "json_lines", path=text, append=text)) == []
    for text in ("RATE", "${RATE", "${RATE:?}", "${1}"):
        assert wrong(definition("proc", "resample", rate=text)) == ["configuration/rate"]
    assert wrong(definition("proc", "tasks.gpu.Detect", rate="RATE", any=[1])) == []
    assert wrong(definition("proc", "of_a_plugin", rate="RATE")) == []
    assert wrong(definition("proc", "json_lines", rate="RATE")) == []  # a plugin may share the mark of a source


NODE = '''
from typing import Literal, Optional
from celerypipe import Proc

class Scale(Proc):
    """Scales.

    ``by``, ``up_to``: how much, and
    how far
    """

    def __init__(self, by: dict[str, float], size: tuple[int, int], up_to: Optional[float] = None, **more):
        pass
'''


def test_the_nodes_of_a_plugin_folder_are_added(write: Write, tmp_path: Path) -> None:
    write("plugins/nodes/proc/_scale/scale.py", NODE)
    valid = validator(tmp_path / "plugins")
    assert wrong(definition("proc", "scale", by={"a": 1.5}, size=[1, 2], other="x"), valid) == []
    assert wrong(definition("proc", "scale", by={"a": "b"}, size=[1, "x"], up_to="far"), valid) == [
        "configuration/by/a",
        "configuration/size/1",
        "configuration/up_to",
    ]
    each = next(e for e in valid.schema["$defs"]["NodeDefinition"]["allOf"] if "scale" in json.dumps(e["if"]))
    arguments = each["then"]["properties"]["configuration"]["properties"]
    assert arguments["by"]["description"] == arguments["up_to"]["description"] == "how much, and how far"

    write("plugins/nodes/proc/_scale/config.toml", "[arguments]\nby = {}\nsize = [1, 1]\n")
    assert wrong(definition("proc", "scale"), validator(tmp_path / "plugins")) == []
