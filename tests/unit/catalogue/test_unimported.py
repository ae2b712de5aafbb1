"""The outline of a node that is not imported: what its class would tell, or nothing."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.catalogue.outline import Outline
from celerypipe.catalogue.unimported import instead_of, outline_of_mark

MODULE = '''
"""Runs, so that both ways can be compared; what reads it does not run it."""
import functools
import celerypipe
from celerypipe import Proc, Sink, Source, node
from celerypipe import nodes as Base

SIZE = 5

class Plain(Proc):
    version = "1"

class Full(Proc):
    """Takes all kinds."""
    def __init__(self, path, /, size, shape=(2, 3), *, rate: float = SIZE, words: "list[str]" = ["a", None], **more):
        ...
    def update(self, message): ...

class Heir(Full):
    def update_batch(self, messages): ...

class Own(Full):
    stateful = True
    def __init__(self, size: int = -1): ...
    def snapshot(self): ...
    def restore(self, state): ...

class Half(Source):
    stateful: bool = True
    def snapshot(self): ...
    async def messages(self):
        yield 1

class Outer:
    class Inner(Sink):
        async def update(self, message): ...
        async def helps(self): ...

@node(version="4", queue="x", stateful=True)
def function(value, threshold=0.5, *, mode="fast", **more): return value

@celerypipe.node
async def bare(value): return value

class Called(celerypipe.Proc):
    if SIZE > 3:
        version = "1"

class Decided(Proc):
    if SIZE > 3:
        def update_batch(self, messages): ...

class Assigned(Proc):
    update_batch = print

class Computed(Proc):
    stateful = SIZE > 3

class Mixed(Plain, functools.partial): ...

@functools.total_ordering
class Decorated(Proc):
    def __lt__(self, other): return True

@node
@functools.lru_cache
def wrapped(value, size=1): return value

@node(**{"stateful": True})
def spread(value): return value

class Twice(Proc):
    version = "1"
class Twice(Proc):
    version = "2"

class Changed(Proc): ...
Changed.update_batch = print
class Replaced(Proc): ...
Replaced = Plain
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "signed_nodes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "signed_nodes", raising=False)
    importlib.invalidate_caches()
    return "signed_nodes"


def told(outline: Outline | None) -> tuple[object, ...]:
    """All of an outline; of defaults that are no plain values only that there is one."""
    assert outline is not None
    arguments = [(each.name, each.required, each.annotation.strip("'")) for each in outline.arguments]
    return arguments, replace(outline, arguments=())


KNOWN = ("Plain", "Full", "Heir", "Own", "Half", "Outer.Inner", "function", "bare", "Called")
UNKNOWN = ("Decided", "Assigned", "Computed", "Mixed", "Decorated", "wrapped", "spread", "Twice", "Replaced", "Absent")


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_read_is_what_the_class_tells(module: str, name: str) -> None:
    mark = f"{module}.{name}"
    read = outline_of_mark(mark)
    assert module not in sys.modules, "it is not run for this"
    known = Catalogue().find(mark).outline()
    assert told(read) == told(known)
    assert outline_of_mark(mark) == known, "now it is imported"


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_read_is_not_known(module: str, name: str) -> None:
    assert outline_of_mark(f"{module}.{name}") is None
    assert module not in sys.modules


def test_a_node_is_known_where_only_its_package_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "half_imported"
    home.mkdir()
    for name in ("__init__", "here", "elsewhere"):
        (home / f"{name}.py").write_text("from celerypipe import Proc\nclass Gain(Proc): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("half_imported.here")  # a node of the same pipeline that runs here
    read = outline_of_mark("half_imported.elsewhere.Gain")
    assert "half_imported.elsewhere" not in sys.modules, "it is not run for this"
    assert told(read) == told(Catalogue().find("half_imported.elsewhere.Gain").outline())


def test_a_base_of_another_project_with_a_name_of_the_contract_is_not_known(module: str, tmp_path: Path) -> None:
    (tmp_path / "others.py").write_text("from signed_nodes import Full as Proc\nclass Mine(Proc): ...\n")
    assert outline_of_mark("others.Mine") is None


def test_what_is_not_here_is_not_known() -> None:
    for mark in ("nowhere.to.be.Found", "celerypipe.nowhere.Found", "os.path", "json.Gone"):
        assert outline_of_mark(mark) is None


def test_a_misspelt_mark_has_neighbours_where_its_source_is_here(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = instead_of(f"{module}.Plian")
    assert offered is not None
    assert {f"{module}.Plain", f"{module}.bare"} <= set(offered)
    for mark in (f"{module}.Plain", f"{module}.Outer.Inner", f"{module}.Assigned", "nowhere.to.be.Found", "others"):
        assert instead_of(mark) is None, mark
    (tmp_path / "open_nodes.py").write_text("from signed_nodes import *\n")
    assert instead_of("open_nodes.Plian") is None, "the star may bring it"
    for folder in ("plain_folder", "package"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "media.py").write_text("class Gain: ...\nclass _G: ...\ndef gain(): ...\n")
    (tmp_path / "package" / "__init__.py").write_text("")
    for folder in ("plain_folder", "package"):
        assert instead_of(f"{folder}.meida.Gain") == [f"{folder}.media.Gain"]
        assert instead_of(f"{folder}.gpu.Detect") is None, "only workers have it"
        assert instead_of(f"{folder}.media") == [f"{folder}.media.Gain"], "the class was forgotten"
    monkeypatch.chdir(tmp_path)
    assert instead_of("packag.media.Gain") == ["package.media.Gain"]


def test_a_plugin_is_read_with_its_defaults(tmp_path: Path) -> None:
    home = tmp_path / "nodes" / "proc" / "_label"
    home.mkdir(parents=True)
    (home / "label.py").write_text(
        "from celerypipe import Proc\nclass _Base(Proc): ...\nclass Label(_Base):\n"
        "    def __init__(self, label: str, times: int, **more): ...\n    def update(self, message): ...\n"
    )
    for config in ("", "[arguments]\nlabel = 'new'\ntimes = 1\n", "[arguments]\nlabel = 'new'\nother = 2\n"):
        (home / "config.toml").write_text(config)
        catalogue = Catalogue([tmp_path])
        assert told(catalogue.outline("label", "proc")) == told(catalogue.find("label", "proc").outline())
    (home / "label.py").write_text("from celerypipe import Proc\nclass One(Proc): ...\nclass Two(Proc): ...\n")
    assert Catalogue([tmp_path]).outline("label", "proc") is None
