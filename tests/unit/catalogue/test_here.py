"""The code of a node by its source here is what its worker tells once it has imported that."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.catalogue.code import code_of
from celerypipe.catalogue.here import code_of_mark, code_of_plugin
from tests.servers import ROOT, Write
from tests.unit.catalogue.studio import PROJECT, codes_in

PLUGIN = """
    from celerypipe import Proc
    from .words import WORD
    class Detect(Proc):
        def update(self, message):
            return message.with_payload(WORD)
    """


@pytest.fixture
def project(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in PROJECT.items():
        write(name, text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] in ("studio", "library")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return tmp_path


def test_it_is_what_an_import_says_wherever_it_can_be_read(project: Path) -> None:
    here = {name: code_of_mark(f"studio.gpu.{name}") for name in ("Detect", "Other", "plain", "Versioned", "declared")}
    assert not [name for name in sys.modules if name.partition(".")[0] == "studio"], "nothing is imported for it"
    told = codes_in(str(project))
    assert {name: told[name] for name in here} == here
    assert len(set(here.values())) == 5
    # Its base is in another module; in its own, it is read.
    assert code_of_mark("studio.gpu.Child") == ""
    assert code_of_mark("studio.gpu.Heir") == told["Heir"] != ""
    for unknown in ("studio.gpu.FACTOR", "studio.gpu.nobody", "nowhere.at.all"):
        assert code_of_mark(unknown) == ""


def test_an_edit_is_seen_without_an_import_and_another_folder_and_lines_are_the_same_code(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_of_mark("studio.gpu.Detect")
    helpers = project / "studio" / "helpers.py"
    helpers.write_bytes(helpers.read_bytes().replace(b"\n", b"\r\n"))
    assert code_of_mark("studio.gpu.Detect") == before
    helpers.write_text(helpers.read_text().replace("* two()", "+ two()"))
    assert code_of_mark("studio.gpu.Detect") != before


def test_another_python_and_another_folder_tell_the_same(project: Path) -> None:
    """As a worker elsewhere: in another process, which imports it."""
    ask = "import studio.gpu as m\nfrom celerypipe.catalogue.code import code_of\nprint(code_of(m.Detect))"
    there = project / "elsewhere"
    for name in PROJECT:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text((project / name).read_text())
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=there, env={"PYTHONPATH": f"{there}:{ROOT}"}, capture_output=True, text=True
    )
    assert done.stdout.strip() == code_of_mark("studio.gpu.Detect"), done.stderr


def test_a_plugin_is_read_too(write: Write, tmp_path: Path) -> None:
    write("plugins/nodes/proc/_detect/detect.py", PLUGIN)
    write("plugins/nodes/proc/_detect/words.py", "WORD = 1\n")
    catalogue = Catalogue([tmp_path / "plugins"])
    plugin = catalogue.plugin("detect", "proc")
    assert plugin is not None
    here = code_of_plugin(plugin)
    assert here == code_of(catalogue.find("detect", "proc").node) != ""
    write("plugins/nodes/proc/_detect/words.py", "WORD = 2\n")
    assert code_of_plugin(plugin) != here


@pytest.mark.parametrize("module", ["cpu", "gpu", "io", "spectra", "speech"])
def test_the_nodes_of_this_repository_are_read(module: str) -> None:
    for listing in Catalogue.of_module(importlib.import_module(f"tasks.{module}")):
        assert code_of_mark(listing.mark) in ("", code_of(listing.node))
