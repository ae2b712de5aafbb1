"""The page for the first five minutes: its commands, typed as they stand, print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.servers import ROOT
from tests.servers.command import celerypipe
from tests.servers.extent import at_length
from tests.servers.installation import plain_environment

PAGE = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
#: Numbers, and what a table pads them with, differ from run to run.
CHANGES = re.compile(r"[\d.]+ (?:s|ms|µs)\b|\brun [0-9a-f]{12}|[ ─]+")
#: What is said every few seconds, by how long it takes.
NOW_AND_THEN = re.compile(r"^subtitles: running for .*\n", re.MULTILINE)


def commands(block: str) -> list[tuple[str, str]]:
    """What is typed in a block, each with what it prints."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def steady(text: str) -> str:
    return CHANGES.sub(" ", NOW_AND_THEN.sub("", text)).strip()


def lines(text: str) -> list[str]:
    return [line.strip() for line in steady(text).splitlines()]


def test_a_project_is_made_as_the_page_shows(tmp_path: Path) -> None:
    (made, shown), *_ = commands(BLOCKS[1])
    program, *words = made.split()
    assert program == "celerypipe"
    done = celerypipe(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace(f"{sys.executable} -m ", "") == shown  # so it is typed where no environment is active
    assert len([typed for block in BLOCKS[:2] for typed, _ in commands(block)]) == 6
    for path in ("README.md", "pipeline.json", "recordings"):
        assert (tmp_path / "interviews" / path).exists()


@at_length
@pytest.mark.timeout(900)  # most of it is pip's
def test_the_page_is_true_from_an_empty_folder(tmp_path: Path, redis_url: str) -> None:
    """``redis_url``: for its answer to a missing redis-server."""
    around: Mapping[str, str] = {**plain_environment(), "COLUMNS": "120"}
    script, shown = ["set -e"], []
    for typed, printed in [each for block in BLOCKS[:2] for each in commands(block)]:
        script.append(re.sub(r"'celerypipe(\[.*?\]) @ git\+URL'", rf"'{ROOT}\1'", typed))
        shown.append(printed)
    told = [f"echo '-- {number}'\n{line}" for number, line in enumerate(script[1:])]
    done = subprocess.run(
        ["sh", "-c", "\n".join(["exec 2>&1", script[0], *told])],
        cwd=tmp_path,
        env={**os.environ, **around},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    found = re.split(r"^-- \d\n", done.stdout, flags=re.MULTILINE)[1:]
    for printed, really in zip(shown[3:], found[3:], strict=True):  # pip says what it likes
        assert lines(really) == lines(printed)
    left = (tmp_path / "interviews" / "out" / "two_cities.srt").read_text()
    assert left.startswith(BLOCKS[2].rstrip("\n"))
