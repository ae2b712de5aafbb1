"""The version of a node's class, read from its source without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from celerypipe.catalogue.declaration import version_in_file, version_of_mark

MODULE = '''
"""Must not be run: what it imports is not here."""
import torch_of_the_other_machine
import celerypipe
from celerypipe import Proc, node

class Plain(Proc):
    pass

class Versioned(Proc):
    version: str = "3"

class Child(Versioned):
    """Inherits it."""

class Foreign(torch_of_the_other_machine.Detector):
    """Who knows."""

class Computed(Proc):
    version = str(1 + 1)

class Outer:
    class Inner(celerypipe.Proc):
        version = "inner"

@node
def plain(value): return value

@celerypipe.node(queue="x", version="7")
def function(value): return value
'''


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("Plain", ""),
        ("Versioned", "3"),
        ("Child", "3"),
        ("Foreign", None),
        ("Computed", None),
        ("Outer.Inner", "inner"),
        ("Outer", None),
        ("plain", ""),
        ("function", "7"),
        ("Absent", None),
    ],
)
def test_a_version_is_read_from_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str | None
) -> None:
    package = tmp_path / "declared" / "deep"
    package.mkdir(parents=True)
    (tmp_path / "declared" / "__init__.py").write_text("raise RuntimeError('not to be run')")
    (package / "nodes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert version_of_mark(f"declared.deep.nodes.{name}") == version


def test_of_a_module_that_is_loaded_the_class_itself_is_asked() -> None:
    assert version_of_mark("tests.nodes.remote.Echo") == ""
    assert version_of_mark("celerypipe.contract.function.FunctionNode") == ""


def test_what_is_not_here_is_not_known(tmp_path: Path) -> None:
    assert version_of_mark("nowhere.to.be.Found") is None
    assert version_of_mark("celerypipe.nowhere.Found") is None
    assert version_in_file(tmp_path / "none.py") is None


def test_a_plugin_file_defines_one_node(tmp_path: Path) -> None:
    file = tmp_path / "shout.py"
    file.write_text("class Shout(Proc):\n    version = '2'\nclass _Own: pass\n")
    assert version_in_file(file) == "2"
    file.write_text("class Shout(Proc): pass\nclass Other: pass\n")
    assert version_in_file(file) is None
    file.write_text("class Shout(Proc")
    assert version_in_file(file) is None
