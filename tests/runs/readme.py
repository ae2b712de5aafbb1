"""What the README tells a reader to save and to run."""

from __future__ import annotations

import re
from pathlib import Path

from tests.servers import ROOT

#: All of it.
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
#: The address of Redis in it.
ADDRESS = "redis://redis-host:6379/0"
_SAVED = re.compile(r"this as `([\w./]+)`:\n\n```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def section(heading: str) -> str:
    """Return what stands below a heading."""
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def save(folder: Path, heading: str = "First run") -> list[str]:
    """Save the files that a section has its reader save, as they stand there, and return their names."""
    files = _SAVED.findall(section(heading))
    for name, text in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return [name for name, _ in files]


def command_and_lines() -> tuple[list[str], list[str]]:
    """The words of the command that is to be typed, and the lines that it leaves."""
    typed, left = [text for language, text in _BLOCK.findall(section("First run")) if not language]
    return typed.split(), left.splitlines()


def script(heading: str, url: str) -> str:
    """The last Python of a section, with the address of a Redis that is there."""
    found = [text for language, text in _BLOCK.findall(section(heading)) if language == "python"][-1]
    assert ADDRESS in found
    return found.replace(ADDRESS, url)
