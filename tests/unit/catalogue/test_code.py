"""Which code a node is: what is edited is other code, what it does not use is not looked at."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.catalogue.code import code_of
from celerypipe.contract.contract import Proc
from celerypipe.process.version import VERSION
from tests.servers import Write, eventually
from tests.servers.command import start
from tests.unit.catalogue.studio import PROJECT, codes_in

ASK = """
import json
from tests.unit.catalogue.studio import codes_in
print(json.dumps(codes_in({folder!r})))
"""


@pytest.fixture
def codes(tmp_path: Path, write: Write) -> Callable[..., dict[str, str]]:
    """Return what tells the codes of the nodes in a project, after some edits: file → (old, new)."""
    for name, text in PROJECT.items():
        write(f"project/{name}", text)

    def ask(where: str = "project", **edits: tuple[str, str]) -> dict[str, str]:
        for name, (old, new) in edits.items():
            file = tmp_path / where / f"{name.replace('__', '/')}.py"
            text = file.read_text()
            assert old in text
            file.write_text(text.replace(old, new))
        return codes_in(str(tmp_path / where))

    return ask


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_an_edit_of_what_a_node_uses_is_other_code_and_of_what_it_does_not_is_none(
    codes: Callable[..., dict[str, str]],
) -> None:
    before = codes()
    assert before["Versioned"] == "version 3"
    assert before["declared"] == "version 7"
    sources = {"Detect", "Other", "plain", "Child", "Base", "Heir"}
    assert {name for name, code in before.items() if code.startswith("source ")} == sources
    assert codes() == before

    # Its own body, and that of a node beside it that nobody names: a method more is a line more in the file.
    after = codes(studio__gpu=("return None", "pass\n\n        return [message]"))
    assert changed(before, after) == {"Other"}
    before = after
    after = codes(studio__gpu=("def plain(value):\n    return value", "def plain(value):\n    return value + 1"))
    assert changed(before, after) == {"plain"}

    # A helper and a constant in its module, helper modules, however deep, inside a function, beside the package.
    before = after
    for edit in (
        {"studio__gpu": ("FACTOR = 2", "FACTOR = 3")},
        {"studio__gpu": ("return value * FACTOR", "return value + FACTOR")},
        {"studio__helpers": ("value * two", "value + two")},
        {"studio__deep__inner": ("return 2", "return 3")},
        {"library__words": ("hello", "goodbye")},
    ):
        after = codes(**edit)
        assert changed(before, after) >= {"Detect", "Other", "plain", "Child", "Heir"}
        before = after
    after = codes(studio__lazy=("return value", "return value + 1"))
    assert "Detect" in changed(before, after)
    assert changed(after, codes(studio__deep__unused=("NOTHING = 0", "NOTHING = 1"))) == set()


def test_an_edit_of_a_base_class_or_of_what_it_imports_by_name_is_other_code(
    codes: Callable[..., dict[str, str]],
) -> None:
    before = codes()
    after = codes(studio__bases=("import_module", "import_module  "))
    assert changed(before, after) >= {"Child", "Base"}
    again = codes(studio__called=("return message", "return [message]"))
    assert changed(after, again) >= {"Child", "Base"}
    # An inherited version says nothing of a class's own body.
    assert "Heir" in changed(
        again, codes(studio__gpu=("class Heir(Versioned):\n    pass", "class Heir(Versioned):\n    x = 1"))
    )


def test_a_node_that_is_named_by_a_named_one_counts(codes: Callable[..., dict[str, str]], write: Write) -> None:
    chain = "".join(
        f"@node\ndef {name}(value):\n    return {used}\n\n"
        for name, used in (
            ("first", "second(value)"),
            ("second", "third(value)"),
            ("third", "value"),
            ("last", "value"),
        )
    )
    write("project/studio/gpu.py", f"from celerypipe import node\n\n{chain}__all__ = ['first', 'last']\n")
    before = codes()
    after = codes(studio__gpu=("def third(value):\n    return value", "def third(value):\n    return -value"))
    assert changed(before, after) == {"first", "second", "third"}
    write("project/studio/gpu.py", f"from celerypipe import node\n\n{chain}ALL = globals()\n")
    before = codes()
    after = codes(studio__gpu=("def third(value):\n    return value", "def third(value):\n    return -value"))
    assert changed(before, after) == {"first", "second", "third", "last"}


REGISTERED = """
import celerypipe as cp
from registry import node, Proc

TABLE = []

@node
def called(value):
    return TABLE[0](value)

@node
def listed(value):
    return value

class Other(Proc):
    x = 1

class Plain(cp.Proc):
    x = 1
"""


def test_what_does_something_by_being_defined_counts_for_all(
    codes: Callable[..., dict[str, str]], write: Write
) -> None:
    write("project/registry.py", "import celerypipe\nProc = celerypipe.Proc\nnode = celerypipe.node\n")
    write("project/studio/gpu.py", REGISTERED)
    before = codes()
    for edit in (
        ("listed(value):\n    return value", "listed(value):\n    return -value"),
        ("x = 1\n\nc", "x = 2\n\nc"),
    ):
        after = codes(studio__gpu=edit)
        assert changed(before, after) >= {"called", "listed", "Other", "Plain"}
        before = after
    assert changed(
        before, codes(studio__gpu=("class Plain(cp.Proc):\n    x = 1", "class Plain(cp.Proc):\n    y = 1"))
    ) == {"Plain"}


def test_code_is_the_same_wherever_it_lies(codes: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "project").rename(tmp_path / "far" / "away")
    moved = codes("far/away")
    command = [sys.executable, "-c", ASK.format(folder=str(tmp_path / "far/away"))]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout) == moved
    (tmp_path / "far" / "away").rename(tmp_path / "project")
    assert codes() == moved
    file = tmp_path / "project/studio/gpu.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert codes() == moved


def test_a_plugin_is_its_own_folder(write: Write, tmp_path: Path) -> None:
    def code(folder: str, word: str) -> str:
        home = f"{folder}/nodes/proc/_label"
        write(f"{home}/words.py", f"WORD = {word!r}\n")
        write(
            f"{home}/label.py",
            "from celerypipe import Proc\nfrom .words import WORD\n\nclass Label(Proc):\n    pass\n",
        )
        return code_of(Catalogue([tmp_path / folder]).find("label").node)

    assert code("one", "a") == code("two", "a") != code("three", "b")
    assert code("four", "a").startswith("source ")


@pytest.fixture
def module(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module with a node in it that this process imports."""
    write("edited_later.py", "from celerypipe import Proc\nimport edited_helper\n\nclass Plain(Proc):\n    pass\n")
    write("edited_helper.py", "A = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "edited_later"
    for name in ("edited_later", "edited_helper"):
        sys.modules.pop(name, None)


def edited_after(node: type[Proc], file: Path) -> None:
    """Files have a clock that stands for some milliseconds: one written at once would be as old as what it replaced."""

    def is_later() -> bool:
        file.touch()
        return file.stat().st_ctime_ns > node.defined_at

    eventually(is_later, "the clock of files going on")


@pytest.mark.parametrize("edited", ["edited_later", "edited_helper"])
def test_a_file_that_was_written_after_its_import_is_not_what_runs(module: str, edited: str, write: Write) -> None:
    found = importlib.import_module(module)
    text = "\n".join((Path(str(found.__file__)).parent / f"{edited}.py").read_text().splitlines())
    edited_after(found.Plain, write(f"{edited}.py", text + "\nB = 2\n"))
    assert code_of(found.Plain) == ""


def test_a_reload_is_looked_at_anew_and_a_class_that_was_made_before_an_edit_is_nobodys(
    module: str, write: Write
) -> None:
    found = importlib.import_module(module)
    before = code_of(found.Plain)
    assert before.startswith("source ")
    old = found.Plain
    edited_after(
        old, write("edited_later.py", "from celerypipe import Proc\n\nclass Plain(Proc):\n    edited = True\n")
    )
    assert code_of(old) == "", "a helper may be reloaded without the node that uses it"
    importlib.reload(found)
    assert code_of(found.Plain).startswith("source ")
    assert code_of(found.Plain) != before


def test_without_source_nothing_is_known_unless_a_version_is_declared() -> None:
    made: dict[str, type[Proc]] = {}
    text = "from celerypipe import Proc\nclass Typed(Proc): pass\nclass Declared(Proc): version = '1'\n"
    exec(text, {"__name__": "typed_at_a_prompt"}, made)  # noqa: S102  # as a prompt does
    assert code_of(made["Typed"]) == ""
    assert code_of(made["Declared"]) == "version 1"


def test_built_in_nodes_are_as_old_as_celerypipe() -> None:
    assert code_of(Catalogue().find("passthrough_identity", "proc").node) == f"celerypipe {VERSION}"


def test_many_marks_are_read_in_one_look(codes: Callable[..., dict[str, str]], tmp_path: Path, write: Write) -> None:
    body = "".join(f"class N{n}(Proc):\n    def update(self, message):\n        return message\n\n" for n in range(200))
    write("project/studio/gpu.py", f"from celerypipe import Proc\nfrom . import helpers\n{body}")
    found = codes()
    assert len(set(found.values())) == 200 + 1  # and Proc, which is celerypipe's


def test_of_an_installed_package_only_the_package_counts(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(str(place))

    def code(helper: int, neighbour: int) -> str:
        write("site-packages/installed_one/__init__.py", "")
        write("site-packages/installed_one/helper.py", f"A = {helper}\n")
        write("site-packages/installed_other.py", f"B = {neighbour}\n")
        imports = "import installed_other\nfrom celerypipe import Proc\nfrom . import helper\n"
        write("site-packages/installed_one/nodes.py", f"{imports}\nclass Plain(Proc):\n    pass\n")
        for name in [name for name in sys.modules if name.startswith("installed_o")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return code_of(importlib.import_module("installed_one.nodes").Plain)

    assert code(1, 1) == code(1, 2) != code(2, 2)


def test_a_script_is_a_project_with_what_lies_beside_it(write: Write, tmp_path: Path) -> None:
    script = """
        from celerypipe import node
        from celerypipe.catalogue.code import code_of
        import beside

        @node
        def plain(value):
            return beside.WORD

        print(code_of(plain.__node__))
        """

    def code(word: str) -> str:
        file = write("script.py", script)
        write("beside.py", f"WORD = {word!r}\n")
        return start(file).finish().stdout

    assert code("a") == code("a") != code("b")
    assert code("a").startswith("source ")


def test_a_compiled_module_of_the_project_counts_by_its_bytes(
    codes: Callable[..., dict[str, str]], write: Write, tmp_path: Path
) -> None:
    write(
        "project/studio/gpu.py",
        """
        from celerypipe import node

        @node
        def plain(value):
            from . import fast
            return fast.run(value)
        """,
    )
    compiled = tmp_path / f"project/studio/fast{EXTENSION_SUFFIXES[0]}"
    compiled.write_bytes(b"one")
    before = codes()
    compiled.write_bytes(b"two")
    assert changed(before, codes()) == {"plain"}
