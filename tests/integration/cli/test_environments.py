"""``celerypipe environments``: what was built here, and what becomes of it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from celerypipe.environments.stored import environments_in
from tests.servers import Workplace
from tests.servers.command import celerypipe
from tests.servers.wheels import Wheels, wheels

__all__ = ["wheels"]


@pytest.fixture
def project(workplace: Workplace, wheels: Wheels) -> Path:
    """A folder with two environments of a queue, and a file of requirements; none is built."""
    workplace.config("gpu", wheels.table("environments.one", "clash==1") + wheels.table("environment", "clash"))
    (workplace.folder / "requirements.txt").write_text("\n".join(wheels.lines("clash==1")))
    return workplace.folder


def ask(project: Path, wheels: Wheels, *words: object) -> CompletedProcess[str]:
    return celerypipe("environments", *words, cwd=project, **wheels.around)


def test_they_are_built_by_queue_or_file_listed_and_removed(project: Path, wheels: Wheels) -> None:
    assert "none was built here" in ask(project, wheels, "ls").stdout
    (one,) = ask(project, wheels, "build", "gpu+one").stdout.splitlines()
    assert len(ask(project, wheels, "build", "gpu").stdout.splitlines()) == 2
    same = ask(project, wheels, "build", "requirements.txt")
    assert same.stdout.partition(": ")[2].strip() == one.partition(": ")[2]
    assert same.stderr == "", "it was there"

    listed = json.loads(ask(project, wheels, "ls", "--json").stdout)["environments"]
    named = {tuple(each["names"]): each for each in listed}
    assert set(named) == {("one", project.name), ("gpu",)}
    shared = named["one", project.name]
    assert shared["wanted_by"] == [
        f"{project / 'worker_configs' / 'gpu.toml'} [environments.one]",
        str(project / "requirements.txt"),
    ]
    assert (shared["folder"], shared["in_use"]) == (one.partition(": ")[2], False)
    table = ask(project, wheels, "ls").stdout
    assert "clash==1" in table
    assert shared["id"] in table

    wrong = ask(project, wheels, "rm", "on")
    assert (wrong.returncode, "did you mean 'one'" in wrong.stderr) == (2, True)
    assert f"removed {shared['id']} (one, " in ask(project, wheels, "rm", "one").stdout
    assert [each.title for each in environments_in(wheels.built)] == ["gpu"]


def test_those_go_that_nobody_used_for_long_and_what_was_not_built_to_its_end(project: Path, wheels: Wheels) -> None:
    ask(project, wheels, "build", "gpu")
    old, _ = sorted(environments_in(wheels.built), key=lambda each: each.title == "gpu")
    then = time.time() - 8 * 86_400
    os.utime(wheels.built / f"{old.key}.lock", (then, then))
    (wheels.built / "0123").mkdir()
    done = ask(project, wheels, "rm", "--unused", 7)
    assert [line.partition(",")[0] for line in done.stdout.splitlines()] == [
        "removed 0123",
        f"removed {old.key} (one",
    ]
    (left,) = environments_in(wheels.built)
    in_use = left.place.share(lambda: None)
    kept = ask(project, wheels, "rm", "--all")
    assert kept.stderr == f"kept {left.key} (gpu): it is in use\n"
    os.close(in_use)
    ask(project, wheels, "rm", "--all")
    assert list(wheels.built.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rm",), "say which: a NAME or an id, --unused DAYS, or --all"),
        (("rm", "--all", "one"), "say which"),
        (("rm", "one"), "there is no environment 'one'; none was built here"),
        (("build", "gpu+two"), "no [environments.two] in worker_configs/gpu.toml"),
        (("build", "nothing"), "there is no file nothing, and no worker_configs/nothing.toml"),
    ],
)
def test_what_is_not_there_is_told(project: Path, wheels: Wheels, words: tuple[str, ...], said: str) -> None:
    done = ask(project, wheels, *words)
    assert done.returncode == 2
    assert said in done.stderr
