"""The documents name what is there: a path in backticks and a relative link lead to a file or a folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from celerypipe.definition.pipeline import json_schema
from celerypipe.settings import VARIABLES
from tests.reference.page import STORED, page

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "celerypipe"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
#: What users would make, or what runs leave in a pipeline's folder.
EXAMPLES = frozenset(
    {
        *("tasks/sound.py", "tasks/text.py", "tasks/tones.py", "src/"),
        *("pipeline.json", "host.toml", "config.json", "report.json", "journals/"),
        *("out/two_cities.srt", "interviews/README.md", "recordings/"),  # of a new project
        *("application/json",),  # a type of content
    }
)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
IN_BACKTICKS = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^()#\s]+)[^()\s]*\)")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/?")
ENDINGS = (".py", ".md", ".toml", ".json")


def _paths(text: str) -> list[str]:
    """What stands in backticks and is the path of a file or folder: a marked place such as ``<queue>.toml`` is none."""
    found = [each for each in IN_BACKTICKS.findall(FENCED.sub("", text)) if PATH.fullmatch(each)]
    return [each for each in found if "/" in each or each.endswith(ENDINGS)]


def _links(text: str) -> list[str]:
    return [target for target in LINK.findall(FENCED.sub("", text)) if "://" not in target]


def _missing(text: str, folder: Path) -> list[str]:
    """The paths and links of a document in this folder that lead nowhere."""
    homes = (ROOT, PACKAGE, folder)
    paths = [path for path in _paths(text) if not any((home / path).exists() for home in homes)]
    return paths + [target for target in _links(text) if not (folder / target).exists()]


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_what_a_document_names_is_there(file: Path) -> None:
    missing = _missing(file.read_text(encoding="utf-8"), file.parent)
    assert [each for each in missing if each not in EXAMPLES] == []


def test_the_decisions_are_read() -> None:
    paths = _paths((ROOT / "docs" / "decisions.md").read_text(encoding="utf-8"))
    assert len(set(paths)) > 80


def test_what_is_not_there_is_seen() -> None:
    text = (
        "`runner/run.py`, `celerypipe/errors.py`, `mailbox/` and `resume.md` are there; `/dev/shm`, `a or b.py` and "
        "`worker_configs/<queue>.toml` are none of ours. `runner/nowhere.py`, `tests/gone/` and `warp.py` are gone; "
        "[one](security.md#tls) is there, [one](https://example.org/a.md) is not looked at, [one](gone.md) is gone.\n"
        "```\n`inside/code.py` and [more](code.md)\n```\n"
    )
    assert _missing(text, ROOT / "docs") == ["runner/nowhere.py", "tests/gone/", "warp.py", "gone.md"]


#: What somebody who has never seen the code asks, and the file that the page of the architecture has to lead to.
QUESTIONS = {
    "the clock of a message that is late": "runner/warp/clocks.py",
    "what a worker tells of itself": "mailbox/presence.py",
    "the Lua of publishing": "mailbox/scripts.py",
    "what the result cache is asked": "cache/question.py",
    "what `celerypipe check --live` says of a queue without a worker": "check/workers.py",
    "how an array becomes bytes": "codec/writer.py",
    "where results are put back into order": "runner/warp/handover.py",
}
#: A file, and behind it what in there is meant.
NAMED = re.compile(r"`([\w/]+\.py)`\s+\(`([\w.]+)`\)")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def _defined_in(file: Path) -> set[str]:
    """What a module defines at its top, and what its classes do: ``Warp``, ``Warp.offer``, ``PUBLISH``."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
        if isinstance(node, ast.ClassDef):
            found.update(f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef))
    return found


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_page_of_the_architecture_answers(question: str) -> None:
    row = re.search(rf"^\| {re.escape(question)} \| (.+) \|$", ARCHITECTURE, re.MULTILINE)
    assert row, "the page asks something else"
    assert _paths(row[1])[0] == QUESTIONS[question]


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(ARCHITECTURE))))
def test_what_the_page_of_the_architecture_names_is_defined_there(file: str, name: str) -> None:
    assert name in _defined_in(PACKAGE / file)


def test_the_page_of_the_architecture_has_twelve_steps_a_test_for_each_rule_and_every_room() -> None:
    way, _, rest = ARCHITECTURE.partition("## A message, out and back")[2].partition("## The rules of the protocol")
    rules = rest.partition("## Where is")[0]
    steps, numbers = (re.findall(r"^(\d+)\. ", part, re.MULTILINE) for part in (way, rules))
    assert steps == [str(number) for number in range(1, 13)]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert len(NAMED.findall(way)) >= 12
    assert rules.count("Code: ") == rules.count("Tests: ") == len(numbers) >= 13
    listing = ARCHITECTURE.partition("## What stands where")[2].partition("## A message")[0]
    for face in sorted(PACKAGE.rglob("__init__.py")):
        room = face.parent.relative_to(PACKAGE).as_posix()
        assert room in (".", "nodes/parts") or f"`{room}/`" in listing, room


def test_the_reference_is_as_the_code_is() -> None:
    assert STORED.read_text(encoding="utf-8") == page(), "run `python -m tests.reference keep`, and read what changed"


def test_each_key_of_a_pipeline_file_has_a_meaning_and_an_example() -> None:
    schema = json_schema()
    keys = {
        f"{name}.{key}": value
        for name, shape in {"Document": schema, **schema["$defs"]}.items()
        for key, value in shape["properties"].items()
    }
    assert len(keys) > 40
    without = [key for key, value in keys.items() if not (value.get("description") and value.get("examples"))]
    assert without == ["Body.schedule"]  # which nobody can write yet


def test_each_environment_variable_has_a_row() -> None:
    read = {
        name
        for file in PACKAGE.rglob("*.py")
        for name in re.findall(r"\bCELERYPIPE_[A-Z_]+\b", file.read_text(encoding="utf-8"))
    }
    # By which a worker tells processes that it spawns, and a host or a command its workers.
    own = {
        "CELERYPIPE_WORKER",
        "CELERYPIPE_HOST",
        "CELERYPIPE_PRELOAD",
        "CELERYPIPE_NOTHING_STAYS",
        "CELERYPIPE_ONLY",
        "CELERYPIPE_ACTIVITY",
    }
    own |= {"CELERYPIPE_ISOLATED", "CELERYPIPE_ENVIRONMENT", "CELERYPIPE_ENVIRONMENT_LIST"}
    assert read - own | {"CELERY_BROKER_URL"} == {each.name for each in VARIABLES}
    assert all(each.meaning and each.unit and each.default and each.example for each in VARIABLES)
