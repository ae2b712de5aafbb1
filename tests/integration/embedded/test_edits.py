"""Edited code of a worker is tried before the worker restarts with it. With a worker: ``acceptance/test_watch.py``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.embedded import edits
from celerypipe.embedded.edits import Edits
from tests.servers import ROOT, eventually

NODES = """
from celerypipe import Proc, node

@node
def far(value):
    return value
"""


def warped(name: str, mark: str, queue: str, **more: Any) -> NodeDefinition:
    limits = {"queue": queue, **more}
    return NodeDefinition(name=name, type="proc", mark=mark, warped=True, warp_configuration=limits)


def test_what_does_not_import_restarts_nothing_and_a_pinned_node_keeps_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(edits, "LOOK", 0.02)
    for name in ("tried", "kept", "apart"):
        (tmp_path / f"{name}.py").write_text(NODES)
    nodes = [warped("a", "tried.far", "gpu"), warped("b", "kept.far", "cpu", pinned=True)]
    nodes.append(warped("c", "apart.far", "far"))
    said: list[str] = []
    restarted: list[str] = []
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    # That of one queue is a Python that knows nothing.
    pythons = {"gpu": sys.executable, "far": str(tmp_path / "python")}
    (tmp_path / "python").write_text("#!/bin/sh\necho 'this one has no clash' >&2\nexit 78\n")
    (tmp_path / "python").chmod(0o755)
    watching = Edits(
        nodes, Catalogue(), environment, python=pythons.__getitem__, restart=restarted.append, say=said.append
    )
    watching.start()
    try:
        (tmp_path / "kept.py").write_text(NODES.replace("return value", "return 2"))
        eventually(lambda: said, "what is said of a pinned node")
        text = "worker cpu goes on as it is, for node b is pinned to a process of it; start the run again for the edit"
        assert said == [f"kept.py changed: {text}"]

        (tmp_path / "tried.py").write_text(NODES.replace("@node", "@nod"))
        eventually(lambda: len(said) == 2, "what is said of a broken file")
        assert said[1].startswith("tried.py changed: the module 'tried' does not import: ")
        assert f"{tmp_path / 'tried.py'}:4: NameError: name 'nod' is not defined" in said[1]
        assert said[1].endswith("; worker gpu goes on with the code that it has")
        assert restarted == []

        (tmp_path / "tried.py").write_text(NODES.replace("return value", "return 2"))
        eventually(lambda: restarted, "a restart")
        assert restarted == ["gpu"]
        assert said[2:] == ["tried.py changed: worker gpu restarts"]

        (tmp_path / "apart.py").write_text(NODES.replace("return value", "return 2"))
        eventually(lambda: len(said) == 4, "what the Python of its workers said")
        assert said[3] == "apart.py changed: this one has no clash; worker far goes on with the code that it has"
    finally:
        watching.close()
