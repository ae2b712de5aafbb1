"""The rooms of the tests are those of what they test, and what tests share lies beside them, not in one of them."""

from __future__ import annotations

import re

from tests.servers import ROOT

TESTS, PACKAGE = ROOT / "tests", ROOT / "celerypipe"
#: What is tested besides the package, each in a folder of its own name.
BESIDE = {"benchmarks", "examples", "tasks"}
#: Tests of the whole house, which lie in no room of it.
WHOLE = {f"unit/test_{about}.py" for about in ("classes", "documents", "foreign", "house", "rooms", "words", "zygote")}
#: An import of a test, also in code that is handed to another interpreter as text.
IMPORTED = re.compile(
    r"(?:from|import)\s+(?:tests)?\.[\w.]*\btest_\w+"
    r"|from\s+(?:tests\b|\.)[\w.]*\s+import\s+(?:[\w, ]*|\([\w,\s]*)\btest_\w+"
)


def _imports_of_tests(text: str) -> list[str]:
    return IMPORTED.findall(text)


def test_no_module_of_the_tests_imports_a_test() -> None:
    texts = {file.relative_to(TESTS).as_posix(): file.read_text(encoding="utf-8") for file in TESTS.rglob("*.py")}
    assert len(texts) > 150
    found = {name: imports for name, text in texts.items() if (imports := _imports_of_tests(text))}
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
        "from tests.unit import (\n    other,\n    test_a,\n)",
    ]
    assert [line for line in lines if not _imports_of_tests(line)] == []
    fine = [
        "from tests.nodes import remote",
        "from numpy import test_a",
        "'tests/unit/test_a.py'",
        "import numpy.test_a",
    ]
    assert [line for line in fine if _imports_of_tests(line)] == []


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
