"""What the README tells a reader to save and to run."""

from __future__ import annotations

import re
from pathlib import Path

from tests.servers import ROOT

FIRST_RUN = (ROOT / "README.md").read_text(encoding="utf-8").partition("## First run")[2].partition("\n## ")[0]
_SAVED = re.compile(r"this as `([\w./]+)`:\n\n```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def save(folder: Path) -> list[str]:
    """Save the files of the first run as they stand there, and return their names."""
    files = _SAVED.findall(FIRST_RUN)
    for name, text in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return [name for name, _ in files]


def command_and_lines() -> tuple[list[str], list[str]]:
    """The words of the command that is to be typed, and the lines that it leaves."""
    typed, left = [text for language, text in _BLOCK.findall(FIRST_RUN) if not language]
    return typed.split(), left.splitlines()
