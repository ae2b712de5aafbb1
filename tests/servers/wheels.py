"""Environments that are built within moments and without a network: from wheels that a test makes.

What celerypipe needs there is said by the metadata of its installation. Here that is metadata which asks for nothing,
and a wheel in its place leads to the packages that these tests run with.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sysconfig
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from celerypipe.environments.wanted import Environment
from tests.servers.checkout import ROOT


def make_wheel(folder: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """Write a wheel with these files."""
    about = f"{name}-{version}.dist-info"
    everything = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in everything.items()]
    everything[f"{about}/RECORD"] = "\n".join([*lines, f"{about}/RECORD,,", ""])
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in everything.items():
            archive.writestr(path, text)
    return wheel


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@dataclass(frozen=True)
class Wheels:
    """Where the wheels of one test are, and the environments that are made of them."""

    folder: Path

    @property
    def built(self) -> Path:
        """The folder of the environments."""
        return self.folder / "built"

    @property
    def around(self) -> dict[str, str]:
        """The variables of a process that builds some, or enters one."""
        return {
            "CELERYPIPE_ENVIRONMENTS": str(self.built),
            "PYTHONPATH": os.pathsep.join((str(self.folder / "metadata"), str(ROOT))),
            "UV_CACHE_DIR": str(self.folder / "cache"),
        }

    def lines(self, *requirements: str) -> list[str]:
        """Requirements, with where they are found."""
        return ["--no-index", f"--find-links {self.folder / 'wheels'}", "borrowed", *requirements]

    def environment(self, *requirements: str, name: str = "small", python: str | None = None) -> Environment:
        """An environment of these packages."""
        return Environment(name, tuple(self.lines(*requirements)), python, "a test")

    def table(self, place: str, *requirements: str) -> str:
        """It as a table of a file."""
        return f"[{place}]\nrequirements = {self.lines(*requirements)}\n"


@pytest.fixture
def wheels(tmp_path: Path) -> Wheels:
    """Two versions of one small package."""
    made = Wheels(tmp_path / "wheels-of-its-own")
    about = made.folder / "metadata" / "celerypipe-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: celerypipe\nVersion: 0\nProvides-Extra: more\n")
    beside = {"borrowed.pth": f"{sysconfig.get_path('purelib')}\n"}
    make_wheel(made.folder / "wheels", "borrowed", "1", beside)
    for version in ("1", "2"):
        make_wheel(made.folder / "wheels", "clash", version, {"clash.py": f"VERSION = {version}\n"})
    make_wheel(made.folder / "wheels", "spoils", "1", {"click.py": "raise ImportError('too old for this Python')\n"})
    return made
