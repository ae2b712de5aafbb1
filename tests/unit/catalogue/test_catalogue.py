"""The catalogue: how a mark finds its class, and what is said when it finds none, two, or a broken one."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from celerypipe.catalogue.catalogue import Catalogue, Listing, complaints_from_schema
from celerypipe.contract.contract import Proc
from celerypipe.errors import Complaint, ConfigError, UnknownMark
from celerypipe.message.message import Message
from celerypipe.nodes.json_lines import JsonLinesSink, JsonLinesSource
from tests.servers import Write

MODULE = """
from celerypipe import Message, Proc, Sink, node
from celerypipe.nodes.passthrough_identity import PassthroughIdentity

class Shared(Proc):
    '''A parent.'''

class Detect(Shared):
    '''Detects.'''
    def __init__(self, model, *, size=3, **more): ...
    class Fast(Proc):
        '''Nested.'''

class _Private(Proc):
    '''Not for pipelines.'''

@node
def double(value: int, by: int = 2) -> int:
    '''Doubles.'''
    return value * by

@node
async def later(value):
    return value

def plain(value):
    return value

NUMBER = 3
"""


@pytest.fixture
def module(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module of nodes, a new one for each test."""
    name = f"nodes_of_{tmp_path.name}"
    write(f"{name}/__init__.py", "")
    write(f"{name}/gpu.py", MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return f"{name}.gpu"


def test_a_built_in_is_found_by_type_and_short_mark() -> None:
    catalogue = Catalogue()
    assert catalogue.find("json_lines", "source").node is JsonLinesSource
    assert catalogue.find("json_lines", "sink").node is JsonLinesSink
    assert catalogue.find("passthrough_identity").origin == "built-in"
    with pytest.raises(ConfigError, match="'json_lines' is a sink and a source; say which"):
        catalogue.find("json_lines")


def test_an_unknown_mark_names_the_nearest_and_the_right_type() -> None:
    with pytest.raises(UnknownMark, match="did you mean 'data_streamer'"):
        Catalogue().find("data_steamer", "source")
    with pytest.raises(UnknownMark, match="'data_streamer' is a source, not a proc"):
        Catalogue().find("data_streamer", "proc")
    with pytest.raises(UnknownMark, match="celerypipe nodes"):
        Catalogue().find("zzzzzz")


def test_a_dotted_path_finds_a_class_a_nested_class_and_a_function(module: str) -> None:
    catalogue = Catalogue()
    detect = catalogue.find(f"{module}.Detect")
    assert (detect.mark, detect.type, detect.origin, detect.doc) == (f"{module}.Detect", "proc", "import", "Detects.")
    assert catalogue.find(f"{module}.Detect.Fast").doc == "Nested."
    double = catalogue.find(f"{module}.double")
    made = double.create({"by": 4}, name="double")
    assert isinstance(made, Proc)
    output = made.update(Message(5))
    assert isinstance(output, Message)
    assert (output.payload, made.name) == (20, "double")


def test_a_module_offers_what_it_defines_and_not_what_it_imports(module: str) -> None:
    offered = [listing.mark for listing in Catalogue.of_module(importlib.import_module(module))]
    assert offered == [f"{module}.{name}" for name in ("Shared", "Detect", "Detect.Fast", "double", "later")]


def test_what_a_dotted_path_may_lead_to_besides_a_node_is_said(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue()
    with pytest.raises(UnknownMark, match=f"did you mean '{module}.Detect'"):
        catalogue.find(f"{module}.Detekt")
    with pytest.raises(UnknownMark, match="there is no module 'nowhere_at_all' here; start in"):
        catalogue.find("nowhere_at_all.gpu.Detect")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownMark, match=f"there is no module 'n{module[:-4]}' here; did you mean '{module[:-4]}'"):
        catalogue.find(f"n{module}.Detect")
    with pytest.raises(UnknownMark, match=f"{module} is a module; a mark ends with the name of a node in it: {module}"):
        catalogue.find(module)
    with pytest.raises(ConfigError, match="put @node above"):
        catalogue.find(f"{module}.plain")
    with pytest.raises(ConfigError, match=r"NUMBER is no node"):
        catalogue.find(f"{module}.NUMBER")
    with pytest.raises(ConfigError, match="no Source, Proc or Sink"):
        catalogue.find("celerypipe.errors.Complaint")


def test_a_node_that_cannot_be_made_is_named_with_its_class() -> None:
    said = re.escape("speech: vad cannot be made of threshold: ValueError: threshold: 2 is out of range")
    with pytest.raises(ConfigError, match=f"^{said}"):
        Catalogue().find("vad").create({"threshold": 2}, name="speech")


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("x = 1\nimport not_there_at_all\n", r"broken\.py:2: ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("import not_there.part\n", f"install the package that has 'not_there' into {re.escape(sys.prefix)}, or start"),
        ("def f(:\n", r"broken\.py:1: SyntaxError"),
        ("\n\nraise RuntimeError('no GPU')\n", r"broken\.py:3: RuntimeError: no GPU"),
        ("raise SystemExit(3)\n", r"broken\.py:1: SystemExit: 3"),
    ],
)
def test_a_module_that_does_not_import_is_named_with_its_line(
    module: str, write: Write, tmp_path: Path, text: str, last: str
) -> None:
    write(f"nodes_of_{tmp_path.name}/broken.py", text)
    with pytest.raises(ConfigError, match=last):
        Catalogue().find(module.replace(".gpu", ".broken.Detect"))


def test_an_installed_package_offers_nodes_by_entry_point(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"installed_{tmp_path.name}"
    write(f"{name}.py", "from celerypipe import Sink\nclass Drain(Sink):\n    '''Drains.'''\n")
    write(f"{name}-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    points = write(f"{name}-1.dist-info/entry_points.txt", f"[celerypipe.nodes]\ndrain-it = {name}:Drain\n")
    monkeypatch.syspath_prepend(tmp_path)
    read = Catalogue().outline("drain-it", "sink")
    assert name not in sys.modules
    listing = Catalogue().find("drain-it", "sink")
    assert read == listing.outline()
    assert (listing.origin, listing.doc) == (f"entry point {name}", "Drains.")
    assert listing in Catalogue().listings()
    points.write_text(f"[celerypipe.nodes]\ndrain-it = {name}:Gone\n")
    points.parent.rename(tmp_path / f"{name}-2.dist-info")  # as an update does
    with pytest.raises(ConfigError, match=f"'drain-it' of the package '{name}' does not import: .*AttributeError"):
        Catalogue().find("drain-it", "sink")


def test_missing_and_unknown_arguments_are_named_with_what_it_takes(module: str) -> None:
    detect = Catalogue().find(f"{module}.double")
    assert detect.complaints({"by": 3}) == []
    assert detect.complaints({"bye": 3}) == [
        Complaint("", f"{module}.double has no argument 'bye'; it takes by=2; did you mean 'by'?")
    ]
    missing = Catalogue().find(f"{module}.Detect").complaints({"anything": 1})
    assert missing == [Complaint("", f"the argument 'model' of {module}.Detect is missing; it takes model, size=3")]


def test_the_same_complaints_come_from_a_schema_that_travelled_as_json(module: str) -> None:
    configurations: tuple[Mapping[str, Any], ...] = ({}, {"appendd": 1}, {"model": 1, "x": 2}, {"by": 1}, {"path": 5})
    for listing in [*Catalogue().listings(), *Catalogue.of_module(importlib.import_module(module))]:
        schema = json.loads(json.dumps(listing.schema(), allow_nan=False))
        for configuration in configurations:
            found = complaints_from_schema(schema, configuration)
            assert [str(each).partition("; it takes")[0] for each in found] == [
                str(each).partition("; it takes")[0] for each in listing.complaints(configuration)
            ]


def test_a_built_in_without_its_dependency_is_left_out_of_the_list_and_says_why_when_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "celerypipe.nodes.image_files", raising=False)
    marks = [listing.mark for listing in Catalogue().listings()]
    assert "image_files" not in marks
    assert "console" in marks
    with pytest.raises(ConfigError, match=r"pip install 'celerypipe\[images\]'"):
        Catalogue().find("image_files", "sink")


def test_entries_are_values() -> None:
    first, second = Catalogue().find("console", "sink"), Catalogue().find("console", "sink")
    assert first == second
    assert isinstance(first, Listing)


def test_a_node_that_nobody_awaits_is_not_made(module: str) -> None:
    listing = Catalogue().find(f"{module}.later")
    with pytest.raises(ConfigError, match=r"later: later\(\) is async, .*; write def, and asyncio.run"):
        listing.create({})
    with pytest.raises(ConfigError, match=r"later\(\) is async"):
        listing.create(None)
