"""What a node takes, read from its source: what its worker would tell, or nothing."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.catalogue.outline import arguments_in_source

MODULE = '''
"""Runs, so that both ways can be compared; what reads it does not run it."""
import functools
import celerypipe
from celerypipe import Proc, Source, node

SIZE = 5

class Plain(Proc):
    version = "1"

class Full(Proc):
    """Takes all kinds."""
    version: str = "2"
    cache_meta = ("language",)
    def __init__(self, path, /, size, shape=(2, 3), *, rate: float = 1.0, words=["a", None], deep={1: b"x"}, **more):
        ...

class Heir(Full):
    version = "3"

class Own(Full):
    version = "3"
    cache_meta = []
    def __init__(self, size: int = -1): ...

@node(version="4", queue="x")
def function(value, threshold=0.5, *, mode="fast"): return value

@celerypipe.node(version="4")
def bare(value): return value

class Undeclared(Proc):
    def __init__(self, size=1): ...

class Inherits(Plain):
    pass

class Computed(Proc):
    version = "1"
    def __init__(self, size=SIZE): ...

class Decided(Proc):
    if SIZE > 3:
        version = "1"

class Mixed(Plain, functools.partial):
    version = "1"

@functools.total_ordering
class Decorated(Proc):
    version = "1"
    def __lt__(self, other): return True

@node(version="1")
@functools.lru_cache
def wrapped(value, size=1): return value

@node
def undeclared(value): return value

class Twice(Proc):
    version = "1"
class Twice(Proc):
    version = "2"
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "signed_nodes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("signed_nodes", None)
    importlib.invalidate_caches()
    return "signed_nodes"


def told(arguments: list[dict[str, Any]] | None) -> Any:
    assert arguments is not None
    return [(each["name"], each["required"], each.get("digest") or "") for each in arguments]


@pytest.mark.parametrize(
    "name", ["Plain", "Full", "Heir", "Own", "function", "bare", "undeclared", "Undeclared", "Inherits", "Decided"]
)
def test_what_is_read_is_what_its_worker_tells(module: str, name: str) -> None:
    mark = f"{module}.{name}"
    read = arguments_in_source(mark)
    assert module not in sys.modules, "it is not run for this"
    assert told(read) == told(Catalogue().find(mark).schema()["arguments"])


@pytest.mark.parametrize("name", ["Computed", "Mixed", "Decorated", "wrapped", "Twice", "Absent"])
def test_what_cannot_be_read_is_not_known(module: str, name: str) -> None:
    assert arguments_in_source(f"{module}.{name}") is None
    assert module not in sys.modules


def test_what_is_not_here_is_not_known() -> None:
    assert arguments_in_source("nowhere.to.be.Found") is None
    assert arguments_in_source("celerypipe.nowhere.Found") is None
