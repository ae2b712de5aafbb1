"""Which Pythons this machine has: one that is called so and does not run is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from celerypipe.environments import pythons
from celerypipe.errors import ConfigError
from tests.servers import Write

RUNNING = ".".join(map(str, sys.version_info[:3]))
MINOR = ".".join(map(str, sys.version_info[:2]))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that has no other Python than that of these tests."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PYENV_ROOT", "XDG_DATA_HOME", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def fake(write: Write, path: str, says: str) -> None:
    write(path, f"#!/bin/sh\n{says}\n").chmod(0o755)


def test_without_a_wish_it_is_the_one_that_runs(machine: Path) -> None:
    assert pythons.find(None).path == pythons.find(MINOR).path == pythons.find(RUNNING).path == sys.executable
    assert pythons.find(None).version == RUNNING
    assert [each.version for each in pythons.all_there()] == [RUNNING]


@pytest.mark.parametrize(
    "place",
    ["bin/python3.99", ".pyenv/versions/3.99.1/bin/python3", ".local/share/uv/python/cpython-3.99.1/bin/python3"],
)
def test_others_are_found_where_they_usually_are(machine: Path, write: Write, place: str) -> None:
    fake(write, "bin/python3.98", "exit 127")
    fake(write, ".pyenv/shims/python3.99", "exit 127")
    fake(write, place, "echo cpython 3.99.1")
    found = pythons.find("3.99")
    assert (found.path, found.version, found.implementation) == (str(machine / place), "3.99.1", "cpython")
    with pytest.raises(ConfigError, match=r"has no Python 3\.98; it has (Python 3\.99\.1 \(.*\), )?Python 3"):
        pythons.find("3.98")


def test_a_path_is_taken_as_it_is_if_it_runs(machine: Path, write: Write) -> None:
    fake(write, "mine/python", "echo pypy 3.97.2")
    assert pythons.find(str(machine / "mine/python")).implementation == "pypy"
    with pytest.raises(ConfigError, match=r"'/nowhere/python' does not run; it has Python 3"):
        pythons.find("/nowhere/python")


@pytest.mark.parametrize(("wanted", "complaint"), [("3.9", "is too old for celerypipe"), ("new", "is no version")])
def test_what_celerypipe_does_not_run_with_is_refused(machine: Path, write: Write, wanted: str, complaint: str) -> None:
    fake(write, "bin/python3.9", "echo cpython 3.9.18")
    with pytest.raises(ConfigError, match=complaint):
        pythons.find(wanted)


@pytest.mark.parametrize(
    ("version", "wanted", "is_it"),
    [("3.12.1", "3.12", True), ("3.12.1", "3.1", False), ("3.12.1", "3.12.10", False), ("3.12.1", "3", True)],
)
def test_versions_are_compared_by_their_parts(version: str, wanted: str, is_it: bool) -> None:
    assert pythons.is_of(version, wanted) is is_it
