"""A stub: its name, where it goes, and that nothing is overwritten. What is in it: ``tests/acceptance/test_new.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from celerypipe.cli import main


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stub(*words: str) -> Result:
    return CliRunner().invoke(main, ["stub", *words])


def written(done: Result) -> list[str]:
    assert done.exit_code == 0, done.stderr
    return done.stdout.partition("\n\n")[0].splitlines()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["", "--type", "proc"], "'' is no name here; write letters from a to z"),
        (["a/b", "--type", "proc"], "is no name here"),
        (["../b", "--type", "proc"], "is no name here"),
        (["2d", "--type", "proc"], "is no name here"),
        (["größe", "--type", "proc"], "is no name here"),
        (["tasks.gpu", "--type", "proc"], "is no name here"),
        (["class", "--type", "proc"], "means something else in Python"),
        (["none", "--type", "proc"], "means something else in Python"),
        (["test-tones", "--type", "proc"], "pytest takes the class TestTones for tests"),
        (["proc", "--type", "proc"], "means something else in Python or in celerypipe; choose another name"),
        (["vad", "--type", "proc", "--plugin"], "is the name of a built-in node"),
        (["json", "--type", "sink", "--plugin"], "or of an installed module"),
        (["numpy", "--type", "sink", "--plugin"], "or of an installed module"),
        (["a", "--type", "source", "--queue", "gpu"], "--queue: a source runs where its pipeline runs; leave it out"),
        (["a", "--type", "proc", "--queue", "a,b"], "--queue: 'a,b' is no name for a queue"),
        (["a", "--type", "proc", "--queue", "../a"], "--queue: '../a' is no name for a folder"),
        (["a", "--type", "filter"], "is not one of 'source', 'proc', 'sink'"),
        (["a"], "Missing option '--type'"),
    ],
)
def test_what_cannot_be_written_is_refused(words: list[str], why: str, tmp_path: Path) -> None:
    done = stub(*words)
    assert done.exit_code == 2
    assert why in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "module", "of_class"),
    [
        ("find-faces", "find_faces", "FindFaces"),
        ("FindFaces", "find_faces", "FindFaces"),
        ("OCRText", "ocr_text", "OCRText"),
        ("x2", "x2", "X2"),
    ],
)
def test_a_name_becomes_that_of_a_module_and_of_a_class(name: str, module: str, of_class: str, tmp_path: Path) -> None:
    done = stub(name, "--type", "proc")
    assert f"tasks/{module}.py" in written(done)
    assert f'"mark": "tasks.{module}.{of_class}"' in done.stdout
    assert f"class {of_class}(Proc)" in (tmp_path / "tasks" / f"{module}.py").read_text()


def test_it_goes_into_the_module_of_its_queue_or_where_that_is_there_into_its_own(tmp_path: Path) -> None:
    (tmp_path / "worker_configs").mkdir()
    assert written(stub("one", "--type", "proc", "--queue", "gpu"))[1:] == [
        "tasks/gpu.py",
        "tests/__init__.py",
        "tests/test_one.py",
    ]
    before = (tmp_path / "tasks" / "gpu.py").read_text()
    done = stub("two", "--type", "proc", "--queue", "gpu")
    assert written(done) == ["tasks/two.py", "tests/test_two.py"]
    assert '"queue": "gpu"' in done.stdout
    assert 'imports = ["tasks.gpu", "tasks.two"] into worker_configs/gpu.toml' in done.stdout
    (tmp_path / "worker_configs" / "gpu.toml").write_text('imports = ["tasks.gpu", "tasks.two"]\n')
    done = stub("three", "--type", "sink", "--queue", "gpu")
    assert 'imports = ["tasks.gpu", "tasks.two", "tasks.three"] into worker_configs/gpu.toml' in done.stdout
    assert (tmp_path / "tasks" / "gpu.py").read_text() == before


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text("mine")
    done = stub("one", "--type", "proc")
    assert done.exit_code == 2
    assert "tests/test_one.py: there already; nothing was written" in done.stderr
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["test_one.py"]
    assert (tmp_path / "tests" / "test_one.py").read_text() == "mine"


def test_a_project_with_plugins_and_no_tasks_gets_a_plugin(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    home = "plugins/nodes/proc/_one"
    done = stub("one", "--type", "proc")
    assert written(done)[:2] == [f"{home}/config.toml", f"{home}/one.py"]
    assert '"mark": "one"' in done.stdout
    assert "tasks/two.py" in written(stub("two", "--type", "sink", "--task"))
    assert "tasks/three.py" in written(stub("three", "--type", "sink")), "there is tasks/ now"


def test_what_cannot_be_written_as_a_whole_is_not_written_at_all(tmp_path: Path) -> None:
    (tmp_path / "tests").touch()
    done = stub("a", "--type", "proc")
    assert done.exit_code == 2
    assert "tests/test_a.py: cannot be written: " in done.stderr
    assert "; nothing was made" in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["tests"]
