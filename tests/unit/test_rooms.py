"""The rooms of the tests are those of what they test, and what tests share lies beside them, not in one of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.servers import ROOT

TESTS, PACKAGE = ROOT / "tests", ROOT / "celerypipe"
#: What is tested besides the package, each in a folder of its own name.
BESIDE = {"benchmarks", "examples", "tasks"}
#: Tests of the whole house, which lie in no room of it.
WHOLE = {f"unit/test_{about}.py" for about in ("classes", "documents", "foreign", "house", "rooms", "words")}
#: An import in code that is handed to another interpreter as text.
WRITTEN = re.compile(r"(?:from|import)\s+tests\.[\w.]*\btest_\w+|from\s+tests[\w.]*\s+import\s+[^\n]*\btest_\w+")


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(TESTS.rglob("*.py")):
        yield file.relative_to(TESTS).as_posix(), ast.parse(file.read_text(encoding="utf-8"))


def _imports_of_tests(tree: ast.Module) -> list[int]:
    """The lines at which a test module is imported."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                parts = [part for name in names if name.name.startswith("tests.") for part in name.name.split(".")]
            case ast.ImportFrom(module=module, names=names):
                parts = [*(module or "").split("."), *(name.name for name in names)]
                parts = parts if node.level or parts[0] == "tests" else []
            case ast.Constant(value=str(text)):
                parts = WRITTEN.findall(text) and ["test_"]
            case _:
                continue
        if any(part.startswith("test_") for part in parts):
            found.append(node.lineno)
    return found


def test_no_module_of_the_tests_imports_a_test() -> None:
    modules = dict(_modules())
    assert len(modules) > 150
    found = {name: lines for name, tree in modules.items() if (lines := _imports_of_tests(tree))}
    assert found.pop("unit/test_rooms.py"), "what the next test is about"
    assert found == {}, "what tests share belongs into tests/nodes, tests/runs, tests/servers, or beside the tests"


def test_imports_of_tests_are_found_however_they_are_written() -> None:
    lines = [
        "import tests.unit.test_a",
        "from tests.unit.test_a import b",
        "from tests.unit import test_a",
        "from .test_a import b",
        "code = 'from tests.unit.test_a import b; b()'",
        "code = f'import sys\\nfrom tests.unit import test_a{sys}'",
        "def f():\n    from tests.unit.test_a import b",
    ]
    assert [line for line in lines if not _imports_of_tests(ast.parse(line))] == []
    fine = [
        "from tests.nodes import remote",
        "from numpy import test_a",
        "'tests/unit/test_a.py'",
        "import numpy.test_a",
    ]
    assert [line for line in fine if _imports_of_tests(ast.parse(line))] == []


def test_what_is_tested_has_a_room_of_that_name() -> None:
    strays = []
    for kind in ("unit", "integration"):
        for file in (TESTS / kind).rglob("*.py"):
            room = file.parent.relative_to(TESTS / kind)
            is_room = room.parts and (PACKAGE / room / "__init__.py").exists()
            if not is_room and room.as_posix() not in BESIDE and file.relative_to(TESTS).as_posix() not in WHOLE:
                strays.append(file.relative_to(TESTS).as_posix())
    assert strays == [], "they lie in no package of celerypipe"


def test_nothing_lies_flat_beside_the_rooms() -> None:
    flat = {file.name for file in TESTS.glob("*.py")}
    assert flat <= {"conftest.py", "__init__.py"}, "give it a room"
