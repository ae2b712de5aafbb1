"""A project: its name, its folder, and that nothing of the checkout is left in its files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest
import yaml
from click.testing import CliRunner, Result

from celerypipe.cli import main
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import ConfigError
from celerypipe.scaffold import template
from celerypipe.scaffold.example import EXAMPLES
from celerypipe.scaffold.project import make, project_files
from celerypipe.scaffold.template import TEMPLATES
from tests.servers import ROOT


def new(*words: str) -> Result:
    return CliRunner().invoke(main, ["new", *words])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is no name here; write letters from a to z, digits, '-' and '_', with a letter first"),
        (" ", "is no name here"),
        (".", "is no name here"),
        ("..", "is no name here"),
        ("a/b", "is no name here"),
        ("/a", "is no name here"),
        ("a b", "is no name here"),
        ("1st", "is no name here"),
        ("_a", "is no name here"),
        ("a-", "is no name here"),
        ("a.b", "is no name here"),
        ("größe", "is no name here"),
        ("a\n", "is no name here"),
        ("a$b", "is no name here"),
        ("x" * 101, "is 101 characters long; write at most 100"),
        ("pip", "is the name of a package that a project needs"),
        ("celerypipe", "is the name of a package that a project needs"),
        ("Celery", "is the name of a package that a project needs"),
        ("import_linter", "is the name of a package that a project needs"),
    ],
)
def test_what_is_no_name_is_refused(name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = new("--no-input", "--", name)
    assert done.exit_code == 2
    assert why in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "door", "Door-2", "my_project", "x" * 100])
def test_what_is_a_name(name: str, tmp_path: Path) -> None:
    assert make(name, "empty", within=tmp_path) == tmp_path / name


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").touch()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for name, why in [("full", "the folder is not empty"), ("file", "a file of that name"), ("nowhere", "a file of")]:
        done = new(name)
        assert done.exit_code == 2
        assert f"{tmp_path / name}: " in done.stderr
        assert why in done.stderr
        assert "choose another name" in done.stderr
    assert [file.name for file in (tmp_path / "full").iterdir()] == [".hidden"]
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "gone").exists()


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "door").mkdir()
    assert (make("door", "empty", within=tmp_path) / "pipeline.json").is_file()


def test_a_folder_that_was_removed_is_no_place_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = new("door")
    assert done.exit_code == 2
    assert done.stderr.endswith(": the current folder is not there any more; cd to one that is\n")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone").rmdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/door/\S+: cannot be written: Not a directory"):
        make("door", "empty", within=tmp_path / "file")


def test_an_unknown_example_is_answered_with_those_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = new("door", "--example", "speach")
    assert done.exit_code == 2
    assert all(name in done.stderr for name in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_nothing_of_the_checkout_is_left(example: str, tmp_path: Path) -> None:
    files = project_files("door", example)
    for path, text in files.items():
        assert not re.search(r"examples/|\{\{(?:name|image|about|queue|dependencies)\}\}|README.md here", text), path
    assert {PurePosixPath(name) for name in ("README.md", ".gitignore", "deploy/door@.service")} <= set(files)
    folder = make("door", example, within=tmp_path)
    settings = tomllib.loads((folder / "pyproject.toml").read_text())
    assert settings["project"]["name"] == "door"
    for path in settings["tool"]["mypy"]["files"]:
        assert (folder / path).exists()


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_queue_has_its_configuration_and_its_container(example: str, tmp_path: Path) -> None:
    folder = make("door", example, within=tmp_path)
    queues = {node.queue for node in Pipeline.load(folder / "pipeline.json").warped}
    assert queues == {file.stem for file in (folder / "worker_configs").glob("*.toml")}
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    assert set(services) == {"redis", *queues}
    for queue in queues:
        assert services[queue]["command"] == f"celery -A celerypipe worker -Q {queue}"
        assert services[queue]["healthcheck"]["test"][-1] == queue
        imports = tomllib.loads((folder / "worker_configs" / f"{queue}.toml").read_text())["imports"]
        assert all((folder / f"{module.replace('.', '/')}.py").is_file() for module in imports)
    assert EXAMPLES[example].queue in queues


def test_what_examples_have_in_the_checkout_is_linked_and_not_copied() -> None:
    links = [file for file in TEMPLATES.rglob("*-tpl") if file.is_symlink()]
    assert len(links) > 15
    for link in links:
        assert link.resolve().is_relative_to(ROOT)
        assert link.is_file(), f"{link} leads nowhere"
    ours = {file.read_text() for folder in ("tasks", "examples") for file in (ROOT / folder).rglob("*.py")}
    assert [
        file for file in TEMPLATES.rglob("*-tpl") if not file.is_symlink() and file.read_text() in ours - {""}
    ] == []
    assert [file for file in TEMPLATES.rglob("*") if file.is_file() and not file.name.endswith("-tpl")] == []


def test_where_nobody_can_be_asked_it_is_the_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = new("door")
    assert done.exit_code == 0, done.stderr
    assert "begins with 'empty'" in done.stdout
    (_, enter, install, run) = [line.strip() for line in done.stdout.splitlines() if line.strip()][:4]
    assert enter == "cd door"
    assert install.endswith("install -e '.[dev]'")
    assert run.endswith("run pipeline.json")
    assert json.loads((tmp_path / "door" / "pipeline.json").read_text())["pipeline"]["name"] == "door"


def test_a_template_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "TEMPLATES", tmp_path)
    with pytest.raises(ConfigError, match="common: there are no templates; install celerypipe again"):
        project_files("door", "empty")
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "README.md-tpl").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"README\.md-tpl: is missing; install celerypipe again, from the whole"):
        project_files("door", "empty")


def test_what_lacks_the_sources_of_templates_is_not_built(tmp_path: Path) -> None:
    for name in ("setup.py", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "celerypipe", tmp_path / "celerypipe", symlinks=True, ignore=ignored)
    command = [sys.executable, "setup.py", "--name"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "built from the whole repository: tasks/, examples/ and worker_configs/ are missing" in done.stderr
