"""A definition in YAML: as strict as JSON."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from celerypipe.definition.file import read_definition
from celerypipe.definition.yaml import read_yaml
from celerypipe.errors import DefinitionError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: no\nb: 1:30\nc: 1e3", {"a": "no", "b": "1:30", "c": 1000.0}),
        ("[1, -2.5, ~, true, .5]", [1, -2.5, None, True, 0.5]),
        ("a: 2026-11-30\nb: 'x'\n\"c\": 0x10", {"a": "2026-11-30", "b": "x", "c": "0x10"}),
        ("a:\n  - b: {c: d}\n", {"a": [{"b": {"c": "d"}}]}),
        ("1: a", {"1": "a"}),
        ("", None),
    ],
)
def test_plain_values_are_those_of_json(text: str, value: Any) -> None:
    found = read_yaml(text)
    assert found == value
    assert json.loads(json.dumps(found)) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n\tb: 1", r"at line 2, column 1; YAML takes no tabs: indent with spaces"),
        ("a: 1\na: 2", r"the key 'a' is written twice.* at line 2, column 1"),
        ("a: &x [1]\nb: *x", r"anchors and aliases \(& and \*\) are not taken at line 1"),
        ("a: !!python/object:os.system x", r"tags \(.*\) are not taken; leave it out at line 1, column 4"),
        ("a: !!bool yes", r"tags \(tag:yaml.org,2002:bool\) are not taken"),
        ("a: !!set {b, c}", r"tags \(tag:yaml.org,2002:set\) are not taken"),
        ("a: " + "9" * 5000, "too long a number at line 1, column 4"),
        ("[1]: 2", "a key is a text"),
        ("? [1]\n: 2", "a key is a text"),
        ("a: [1,", "at line 1|at line 2"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: \x00", "special characters are not allowed|unacceptable character"),
    ],
)
def test_what_is_refused_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_yaml(text)


def test_a_file_is_yaml_by_its_suffix_and_standard_input_by_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.yaml", "a.yml"):
        (tmp_path / name).write_text("pipeline: {name: p}")
        assert read_definition(tmp_path / name) == {"pipeline": {"name": "p"}}
    (tmp_path / "bad.yaml").write_text("a:\n\tb: 1")
    with pytest.raises(DefinitionError, match=r"bad\.yaml: is not YAML: .*tabs"):
        read_definition(tmp_path / "bad.yaml")
    (tmp_path / "a.json").write_text("pipeline: {name: p}")
    with pytest.raises(DefinitionError, match=r"is not JSON: .*; if it is YAML, give it a name that ends with \.yaml"):
        read_definition(tmp_path / "a.json")
    for text in ("pipeline: {name: p}", ' {"pipeline": {"name": "p"}}'):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert read_definition(Path("-")) == {"pipeline": {"name": "p"}}
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DefinitionError, match="<stdin>: cannot be read: standard input is closed"):
        read_definition(Path("-"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b" \n")))
    with pytest.raises(DefinitionError, match="<stdin>: is empty; a definition is"):
        read_definition(Path("-"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{")))
    with pytest.raises(DefinitionError, match="<stdin>: is not JSON"):
        read_definition(Path("-"))


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yaml").write_text("a: 1")
    with pytest.raises(DefinitionError, match=r"pip install 'celerypipe\[yaml\]'"):
        read_definition(tmp_path / "a.yaml")
