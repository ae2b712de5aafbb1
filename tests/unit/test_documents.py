"""The documents name what is there: a path in backticks and a relative link lead to a file or a folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "celerypipe"
#: The page of the architecture is written anew; it names modules as they were called before the packages.
WRITTEN_ANEW = {"architecture.md"}
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")),
    *(file for file in sorted((ROOT / "docs").glob("*.md")) if file.name not in WRITTEN_ANEW),
]
#: What users would make, or what runs leave in a pipeline's folder.
EXAMPLES = frozenset({"pipeline.json", "tasks/text.py", "src/", "config.json", "journals/"})
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
