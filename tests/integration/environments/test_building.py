"""An environment is built once, whoever wants it at the same time and whatever is killed over it."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from celerypipe.environments import building
from celerypipe.environments.building import plan, ready
from celerypipe.environments.stored import Site, environments_in, leftovers_in
from celerypipe.environments.wanted import Environment, listed_in
from celerypipe.errors import ConfigError, EnvironmentFailed
from tests.servers import eventually
from tests.servers.command import begin
from tests.servers.extent import at_length
from tests.servers.wheels import Wheels, wheels

__all__ = ["wheels"]


@pytest.fixture(autouse=True)
def _around(wheels: Wheels, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process builds without a network, too."""
    for name, value in wheels.around.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(wheels.folder / "metadata"))


def build(environment: Environment, folder: Path, said: list[str]) -> Site:
    planned = plan(environment, folder)
    os.close(ready(planned, said.append))
    return planned.place


def ask(place: Site, program: str) -> str:
    """Where this runs, the metadata of a checkout would come first."""
    words = [place.python, "-c", program]
    return subprocess.run(words, cwd=place.folder, capture_output=True, text=True, check=True).stdout.strip()


def test_it_has_what_was_asked_for_and_the_celerypipe_that_built_it_and_is_found_again(
    wheels: Wheels, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    place = build(wheels.environment("clash==1"), wheels.built, said)
    assert [line.partition(" ")[0] for line in said] == ["building", "built"]
    monkeypatch.setenv("PYTHONPATH", "")
    assert ask(place, "import clash; print(clash.VERSION)") == "1"
    code = "import celerypipe, os; print(os.path.realpath(celerypipe.__file__))"
    assert Path(ask(place, code)) == Path(building.__file__).parents[1] / "__init__.py"
    assert ask(place, "from importlib.metadata import version; print(version('celerypipe'))") == "0"
    assert build(wheels.environment("clash==1", name="another"), wheels.built, said) == place
    assert len(said) == 2, "the second time nothing is built, or said"
    other = build(wheels.environment("clash==2"), wheels.built, said)
    assert other.folder != place.folder
    assert ask(other, "import clash; print(clash.VERSION)") == "2"
    assert [each.made.names for each in environments_in(wheels.built)] == [["small"], ["small", "another"]]


@pytest.mark.parametrize("changed", ["requirement", "constraint", "celerypipe"])
def test_what_it_is_made_of_tells_it_from_others(wheels: Wheels, changed: str, tmp_path: Path) -> None:
    limits = tmp_path / "limits.txt"
    limits.write_text("clash<2\n")
    before = plan(wheels.environment(f"-c {limits}", "clash"), wheels.built)
    assert before == plan(wheels.environment(f"-c {limits}", "clash"), wheels.built)
    if changed == "constraint":
        limits.write_text("clash<3\n")
    if changed == "celerypipe":
        about = wheels.folder / "metadata" / "celerypipe-0.dist-info" / "METADATA"
        about.write_text(about.read_text() + "Requires-Dist: clash\n")
    lines = ("clash",) if changed == "requirement" else (f"-c {limits}", "clash")
    assert plan(wheels.environment(*lines), wheels.built).place.key != before.place.key


def test_one_that_cannot_be_built_is_told_with_the_last_words_of_the_builder_and_leaves_nothing(wheels: Wheels) -> None:
    with pytest.raises(EnvironmentFailed, match=r"(?s)environment 'small'.*a test.*cannot be built.*clash") as raised:
        build(wheels.environment("clash==3"), wheels.built, [])
    assert len(str(raised.value).splitlines()) <= building.TAIL + 1
    assert leftovers_in(wheels.built) == environments_in(wheels.built) == []


def test_one_in_which_no_worker_can_start_counts_as_not_built(wheels: Wheels) -> None:
    with pytest.raises(
        EnvironmentFailed, match=r"(?s)a worker cannot start in it. Python said last:.*too old for this"
    ):
        build(wheels.environment("spoils"), wheels.built, [])
    assert leftovers_in(wheels.built) == environments_in(wheels.built) == []


def test_what_would_mislead_the_builder_is_kept_from_it(wheels: Wheels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/nowhere")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("UV_PYTHON", "/nowhere/python")
    assert build(wheels.environment("clash"), wheels.built, []).made() is not None


def test_two_who_want_it_at_once_get_one(wheels: Wheels, tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text(wheels.table("environments.small", "clash==2"))
    commands = [begin("environments", "build", file, cwd=wheels.folder, **wheels.around) for _ in range(3)]
    done = [command.finish() for command in commands]
    assert [each.returncode for each in done] == [0, 0, 0], done
    assert len({each.stdout for each in done}) == 1
    assert sum(each.stderr.count("\nbuilt ") for each in done) == 1


def test_one_whose_build_was_killed_is_built_anew_once_nobody_writes_there_any_more(
    wheels: Wheels, tmp_path: Path
) -> None:
    """The builder waits for a file of constraints, a FIFO, and goes on when it can be read."""
    fifo = tmp_path / "limits"
    os.mkfifo(fifo)
    file = tmp_path / "some.toml"
    file.write_text(wheels.table("environments.small", f"-c {fifo}", "clash"))
    place = plan(listed_in(file)["small"], wheels.built).place

    def opened() -> int:
        with suppress(OSError):
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        return 0

    killed = begin("environments", "build", file, cwd=wheels.folder, **wheels.around)
    writer = eventually(opened, "the builder at work")
    killed.kill()
    assert place.is_busy(), "what it started goes on"
    second = begin("environments", "build", file, cwd=wheels.folder, **wheels.around)
    eventually(lambda: "by another process" in second.err.read_text(), "the wait for it")
    os.close(writer)

    def through() -> bool:
        if again := opened():
            os.close(again)
        return second.process.poll() is not None

    eventually(through, "the end of the second build")
    done = second.finish()
    assert done.returncode == 0, done.stderr
    assert "\nbuilding " in f"\n{done.stderr}", "what the killed one left is no environment"
    assert ask(place, "import clash; print(clash.VERSION)") == "2"


def test_one_that_is_in_use_is_not_removed_and_the_lock_ends_with_who_has_it(wheels: Wheels) -> None:
    planned = plan(wheels.environment("clash"), wheels.built)
    lock = ready(planned, lambda _: None)
    assert planned.place.is_busy()
    assert not planned.place.remove()
    os.close(lock)
    assert planned.place.remove()
    assert list(wheels.built.iterdir()) == []


def test_one_whose_python_is_gone_is_none(wheels: Wheels) -> None:
    place = build(wheels.environment("clash"), wheels.built, [])
    place.python.unlink()
    assert place.made() is None
    assert [each.key for each in leftovers_in(wheels.built)] == [place.key]
    assert build(wheels.environment("clash"), wheels.built, []).made() is not None


def test_a_python_that_is_not_there_is_told_before_anything_is_built(wheels: Wheels) -> None:
    with pytest.raises(ConfigError, match=r"has no Python 3\.99; it has Python 3\."):
        plan(wheels.environment("clash", python="3.99"), wheels.built)
    assert not wheels.built.exists()


@at_length
@pytest.mark.timeout(300)
def test_without_uv_pip_builds_it(wheels: Wheels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "find_spec", lambda _: None)
    monkeypatch.setenv(
        "PATH", os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not shutil.which("uv", path=p))
    )
    said: list[str] = []
    place = build(wheels.environment("clash==1"), wheels.built, said)
    assert "venv and pip" in said[0]
    assert ask(place, "import clash; print(clash.VERSION)") == "1"
    with pytest.raises(EnvironmentFailed, match=r"(?s)The builder said last:.*clash==3"):
        build(wheels.environment("clash==3"), wheels.built, [])
