"""What only one process has is answered with what to write: the answer is followed to the letter, and then it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.servers import ROOT
from tests.servers.command import start

DEFINITION = """
from celerypipe import ConfigError, DefinitionError, Embedded, Message, Pipeline, Proc, Runner, node

@node(queue="moved")
def twice(value):
    return value * 2
"""
#: Where to move it, how it is imported, where its worker is started, and how.
ANSWER = re.compile(
    r"move it and what it imports to (?P<file>\S+), and write `(?P<imports>[^`]+)` in the script; "
    r"start the worker in (?P<folder>\S+): `(?P<worker>[^`]+)`"
)


def python(folder: Path, *words: str) -> str:
    """Run Python in a folder, with nothing but celerypipe on its path; return all that it prints."""
    link = folder / "lib" / "celerypipe"
    link.parent.mkdir(exist_ok=True)
    if not link.exists():
        link.symlink_to(ROOT / "celerypipe")
    ended = start(*words, cwd=folder, PYTHONPATH=str(link.parent)).finish()
    return ended.stdout + ended.stderr


def typed(folder: Path, text: str) -> str:
    """The same for what an interpreter reads as it is typed."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder / "lib")}
    command = [sys.executable, "-"]
    return subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment).stdout


HERE = """
print("here", twice(1), Runner(local=True).submit(twice, 2).result())
Runner("redis://127.0.0.1:1/0").submit(twice, 21)
"""
CALL = """
with Embedded(["moved"]) as url, Runner(url) as runner:
    print("the result is", runner.submit(twice, 21).result(timeout=40))
"""


def test_a_function_of_a_script_is_moved_as_the_answer_says_and_called(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(DEFINITION + HERE)
    said = python(tmp_path, "study.py")
    assert "here 2 4" in said
    assert (
        "twice cannot be submitted: it is in the script that was started (study.py), which no worker can import" in said
    )
    answer = ANSWER.search(said)
    assert answer is not None, said
    assert answer["folder"] == str(tmp_path)
    assert answer["worker"] == "celery -A celerypipe worker -Q moved"

    file = tmp_path / answer["file"]
    file.parent.mkdir()
    file.write_text(DEFINITION)
    script.write_text(DEFINITION.partition("@node")[0] + answer["imports"] + "\n" + CALL)
    assert "the result is 42" in python(tmp_path, "study.py")


ASK = """
from celerypipe import ConfigError, DefinitionError, Embedded, Message, Pipeline, Proc, Runner, node
import {module}

class Up(Proc):
    def update(self, message):
        return message

def plain(value):
    return value

@node(queue="gpu-2")
def dashed(value):
    return value

def pipeline(mark, **more):
    node = {{"name": "n", "type": "proc", "mark": mark, "warped": True, "warp_configuration": {{"queue": "moved"}}}}
    return Pipeline(name="p", nodes=[{{**node, **more}}])

def ask(work):
    try:
        work()
    except (ConfigError, DefinitionError) as error:
        print(error)

there = Runner("redis://127.0.0.1:1/0")
ask(lambda: there.submit(plain, 1))
ask(lambda: list(there.map(dashed, [1])))
ask(lambda: list(there.stream(pipeline(Up), [Message(1)])))
ask(lambda: list(there.stream(pipeline("__main__.Up"), [Message(1)])))
ask(lambda: Embedded(pipeline("__main__.Up")))
ask(lambda: list(there.stream(pipeline("__main__.Gone"), [Message(1)])))
print([m.payload for m in Runner().stream(pipeline(Up, warped=False), [Message(1)])])
"""


def test_each_way_to_start_python_is_named_and_none_is_sent_anywhere(tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(ASK.format(module="os"))
    (tmp_path / "IPython.py").write_text("def get_ipython():\n    return 'a shell, as far as anybody asks here'\n")
    (tmp_path / "ipykernel.py").touch()
    started = {
        "the script that was started (ask.py)": python(tmp_path, "ask.py"),
        "the text after python -c": python(tmp_path, "-c", ASK.format(module="os")),
        "what was typed into Python": typed(tmp_path, ASK.format(module="os")),
        "IPython": python(tmp_path, "-c", ASK.format(module="IPython")),
        "a notebook cell": python(tmp_path, "-c", ASK.format(module="IPython, ipykernel")),
    }
    for what, said in started.items():
        plain, dashed, of_class, of_text, embedded, gone, here = said.splitlines()
        assert plain.startswith(f"plain cannot be submitted: it is in {what}, which no worker can import; "), said
        assert "it with @node above it and what it imports" in plain
        assert "tasks/work.py" in plain
        assert "`celery -A celerypipe worker -Q work`" in plain
        # A queue whose name is no name of a module has to be told which one it serves.
        assert "`from tasks.work import dashed`" in dashed
        assert "`celery -A celerypipe worker -Q gpu-2 -I tasks.work`" in dashed
        for each in (of_class, of_text, embedded):
            assert f": it is in {what}, which no worker can import; " in each
            assert "`from tasks.moved import Up`" in each
        assert of_class == of_text
        assert embedded.startswith("node 'n': ")
        assert gone.startswith("pipeline.nodes[0].mark: '__main__.Gone': __main__ is whatever was started, here ")
        assert here == "[1]"
    said = started["a notebook cell"]
    assert "make the folder (!mkdir tasks), put it" in said
    assert "into a cell that begins with %%writefile tasks/moved.py, run that, and then" in said

    # What is there is added to, and imported anew.
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "moved.py").touch()
    said = python(tmp_path, "-c", ASK.format(module="IPython, tasks.moved"))
    assert "begins with %%writefile -a tasks/moved.py" in said
    assert "`import importlib, tasks.moved; importlib.reload(tasks.moved); from tasks.moved import Up`" in said


def test_a_tasks_that_is_found_elsewhere_is_where_it_belongs(tmp_path: Path) -> None:
    package = tmp_path / "lib" / "tasks"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "worker_configs").mkdir()
    said = python(tmp_path, "-c", ASK.format(module="os"))
    assert "to lib/tasks/moved.py, and write" in said
    assert f"start the worker in {tmp_path / 'lib'}: `celery -A celerypipe worker -Q moved`" in said
    (tmp_path / "lib" / "worker_configs").mkdir()
    (tmp_path / "lib" / "worker_configs" / "moved.toml").write_text("imports = []\n")
    assert "worker -Q moved -I tasks.moved`" in python(tmp_path, "-c", ASK.format(module="os"))

    (package / "__init__.py").unlink()
    (package / "worker_configs").rmdir()
    package.rmdir()
    (tmp_path / "tasks.py").touch()
    said = python(tmp_path, "-c", ASK.format(module="os"))
    assert "to tasks.py, and write `from tasks import Up`" in said
    assert "worker -Q moved -I tasks`" in said
