"""Edited code while a run goes on: the node that it is of gets its next message with it, and nothing is lost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celerypipe import Message, Pipeline, Runner
from celerypipe.runner import reloader
from tests.servers import eventually

NODES = """
from celerypipe import Message, Proc, Source, node
from watched.words import WORD

class Say(Proc):
    def __init__(self, end: str = "."):
        self.end = end

    def update(self, message):
        return message.with_payload(f"{WORD} {message.payload}{self.end}")

@node
def shout(value):
    return value + "!"

class Count(Proc):
    stateful = True

    def warmup(self):
        self.count = 0

    def update(self, message):
        self.count += 1
        return message.with_payload(f"{message.payload} {self.count}")

class Pages(Source):
    def messages(self):
        yield from ()
"""
KEEPS = """
    def snapshot(self):
        return self.count

    def restore(self, state):
        self.count = state
"""


class Edited:
    """A project that is edited between two messages of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: What the run said.
        self.told: list[str] = []
        self.write("watched/__init__.py", "")
        self.write("watched/words.py", 'WORD = "one"\n')
        self.write("watched/nodes.py", NODES)

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_suffix(".new")
        whole.write_text(text)
        whole.replace(file)  # at once: half a file would be an edit of its own

    def change(self, name: str, old: str, new: str) -> Callable[[], None]:
        def do() -> None:
            text = (self.folder / name).read_text()
            assert old in text
            self.write(name, text.replace(old, new))

        return do

    def run(self, mark: str, *steps: tuple[str, str, Callable[[], None]], **options: Any) -> list[Any]:
        """Send a message, and one more after each step: when its edit was told as the step says."""
        outputs: list[Any] = []

        def inputs() -> Iterator[Message]:
            yield Message("first")
            for number, (payload, told, edit) in enumerate(steps, 1):
                eventually(lambda: len(outputs) == number, "a result")  # noqa: B023
                before = len(self.told)
                edit()
                if told:
                    eventually(lambda: len(self.told) > before, told)  # noqa: B023
                    assert self.told[before:] in ([told], [told.replace(", watched/words.py", "")]), "between two edits"
                yield Message(payload)

        more = options.pop("node", {})
        pipeline = Pipeline(name="p", nodes=[{"name": "it", "type": "proc", "mark": mark, **more}], **options)
        runner = Runner(reload=True, on_event=self.told.append, local=True)
        for message in runner.stream(pipeline, inputs()):
            outputs.append(message.payload)  # noqa: PERF401  # the next input waits for it
        return outputs


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edited]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(reloader, "LOOK", 0.02)
    yield Edited(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "watched"]:
        del sys.modules[name]


def test_a_node_and_what_it_imports_are_loaded_anew_and_a_broken_file_waits_until_it_is_mended(edited: Edited) -> None:
    nodes, words = "watched/nodes.py", "watched/words.py"

    def mend() -> None:
        text = edited.folder.joinpath(words).read_text()
        edited.write(words, text.replace("two", "ten"))
        edited.change(nodes, 'self.end}"', 'self.end}")')()

    found = edited.run(
        "watched.nodes.Say",
        (
            "second",
            f"{nodes} changed: node it is loaded anew",
            edited.change(nodes, 'end: str = "."', 'end: str = ";"'),
        ),
        ("third", f"{words} changed: node it is loaded anew", edited.change(words, "one", "two")),
        (
            "fourth",
            f"{nodes}:10: SyntaxError: '(' was never closed; node it goes on with the code that it has",
            edited.change(nodes, 'self.end}")', 'self.end}"'),
        ),
        ("fifth", f"{nodes}, {words} changed: node it is loaded anew", mend),
        # It is Python, and does not import: all modules are what they were.
        (
            "sixth",
            f"{words} changed: the module 'watched.nodes' does not import: {edited.folder / nodes}:3: ImportError: "
            f"cannot import name 'WORD' from 'watched.words' ({edited.folder / words}); node it goes on with the code "
            "that it has",
            edited.change(words, "WORD", "WORDS"),
        ),
        ("seventh", f"{words} changed: node it is loaded anew", edited.change(words, "WORDS", "WORD")),
        (
            "eighth",
            f"{nodes} changed: watched.nodes.Say: the module 'watched' has no 'nodes.Say'; it has no nodes; "
            "node it goes on with the code that it has",
            lambda: edited.folder.joinpath(nodes).rename("kept.py"),
        ),
        (
            "ninth",
            f"{nodes} changed: node it is loaded anew",
            lambda: edited.folder.joinpath("kept.py").rename(nodes),
        ),
        # What another node of the file does is no edit of this one.
        ("tenth", "", edited.change(nodes, 'value + "!"', 'value + "?"')),
    )
    assert found[:4] == ["one first.", "one second;", "two third;", "two fourth;"]
    assert found[4:] == [f"ten {number};" for number in ("fifth", "sixth", "seventh", "eighth", "ninth", "tenth")]


MAKER = """
from celerypipe import node
from watched.models import Box

@node
def made(value):
    return Box(value)
"""
OPENER = """
from celerypipe import node
from watched.models import Box

@node
def opened(value):
    return ["a box", value.content] if isinstance(value, Box) else ["another class of that name"]
"""


def test_nodes_that_share_an_edited_module_get_the_same_one_and_none_where_one_of_them_is_broken(
    edited: Edited,
) -> None:
    models, opener = "watched/models.py", "watched/opener.py"
    edited.write("watched/maker.py", MAKER)
    edited.write(opener, OPENER)
    box = "class Box:\n    def __init__(self, content):\n        self.content = content\n"
    edited.write(models, box)
    outputs: list[Any] = []

    def inputs() -> Iterator[Message]:
        yield Message("first")
        for number, (edit, lines) in enumerate(steps, 1):
            eventually(lambda: len(outputs) == number, "a result")  # noqa: B023
            before = len(edited.told)
            edit()
            eventually(lambda: len(edited.told) == before + lines, "what is said")  # noqa: B023
            yield Message(f"message {number}")

    def break_both() -> None:
        edited.write(opener, OPENER.replace("import Box", "import Bax"))
        edited.write(models, box.replace("= content", "= content + content"))

    steps = [
        (lambda: edited.write(models, box.replace("= content", "= content.upper()")), 2),
        (break_both, 1),
        (lambda: edited.write(opener, OPENER), 2),
    ]
    nodes = [{"name": name, "type": "proc", "mark": f"watched.{mark}"} for name, mark in NAMES.items()]
    pipeline = Pipeline(name="p", nodes=nodes, links=[("maker", "opener")])
    for message in Runner(reload=True, on_event=edited.told.append).stream(pipeline, inputs()):
        outputs.append(message.payload)  # noqa: PERF401  # the next input waits for it
    assert outputs == [
        ["a box", "first"],
        ["a box", "MESSAGE 1"],
        ["a box", "MESSAGE 2"],
        ["a box", "message 3message 3"],
    ]
    assert "nodes maker and opener go on with the code that they have" in edited.told[2]


NAMES = {"maker": "maker.made", "opener": "opener.opened"}


def test_a_stateful_node_keeps_what_it_can_give_and_says_what_it_forgets(edited: Edited) -> None:
    nodes = "watched/nodes.py"
    found = edited.run(
        "watched.nodes.Count",
        (
            "second",
            f"{nodes} changed: node it is loaded anew",
            edited.change(nodes, "        return message.with_payload(f\"{message.payload} {self.count}\")\n",
                          "        return message.with_payload(f\"{message.payload} no. {self.count}\")\n" + KEEPS),
        ),
        ("third", f"{nodes} changed: node it is loaded anew", edited.change(nodes, "no.", "number")),
    )  # fmt: skip
    assert found == ["first 1", "second no. 1", "third number 2"]
    assert edited.told[1:2] == ["node it forgets its state: it had no snapshot() and restore()"]
    assert len(edited.told) == 3


def test_edited_code_that_does_not_start_leaves_the_node_as_it_was(edited: Edited) -> None:
    nodes = "watched/nodes.py"
    told = f"{nodes} changed: node it is loaded anew"
    warmup = "\n    def warmup(self):\n        raise OSError('no model')\n\n    def update"
    found = edited.run(
        "watched.nodes.Say",
        ("second", told, edited.change(nodes, "\n    def update", warmup)),
        ("third", told, edited.change(nodes, "OSError('no model')", "SystemExit")),
        ("fourth", told, edited.change(nodes, "raise SystemExit", "self.end = '!'")),
    )
    assert found == ["one first.", "one second.", "one third.", "one fourth!"]
    goes_on = "node it goes on with the code that it had"
    assert edited.told[1] == f"it: warmup() failed: OSError: no model; {goes_on}"
    assert edited.told[3] == f"SystemExit; {goes_on}"


TWICE = """
from celerypipe import Proc

class Twice(Proc):
    def __init__(self, times: int):
        self.times = times

    def update(self, message):
        return message.with_payload(message.payload * self.times)
"""


def test_a_plugin_and_its_defaults_and_a_node_of_elsewhere_that_runs_here(edited: Edited) -> None:
    file, defaults = (f"plugins/nodes/proc/_twice/{name}" for name in ("twice.py", "config.toml"))
    edited.write(file, TWICE)
    edited.write(defaults, "[arguments]\ntimes = 2\n")
    found = edited.run(
        "twice",
        ("b", f"{file} changed: node it is loaded anew", edited.change(file, "= times", "= times + 1")),
        ("c", f"{defaults} changed: node it is loaded anew", edited.change(defaults, "2", "4")),
        plugins=["plugins"],
    )
    assert found == ["firstfirst", "bbb", "ccccc"]

    nodes = "watched/nodes.py"
    change = edited.change(nodes, 'value + "!"', 'value + "?"')
    warped = {"warped": True, "warp_configuration": {"queue": "q"}}
    found = edited.run("watched.nodes.shout", ("b", f"{nodes} changed: node it is loaded anew", change), node=warped)
    assert found == ["first!", "b?"]


GATE = """
import time
from pathlib import Path

def pages():
    while not Path("go").exists():
        time.sleep(0.01)
    yield from ()
"""


def test_a_source_is_not_loaded_in_the_middle_and_it_is_said(edited: Edited) -> None:
    nodes, gate = "watched/nodes.py", "watched/gate.py"
    edited.change(nodes, "yield from ()", "from watched import gate\n        yield from gate.pages()")()
    edited.write(gate, GATE)

    def told(text: str) -> None:
        edited.told.append(text)
        edited.write("go", "")

    pipeline = Pipeline(name="p", nodes=[{"name": "pages", "type": "source", "mark": "watched.nodes.Pages"}])
    change = edited.change(gate, "pages():", "pages(wait=True):")
    Runner(reload=True, on_event=told).run(
        pipeline, on_progress=lambda _: None if "wait" in edited.folder.joinpath(gate).read_text() else change()
    )
    assert edited.told == [f"{gate} changed: the source pages goes on as it is; start the run again for the edit"]


def test_what_the_code_before_computed_is_no_answer_of_the_result_cache(
    edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERYPIPE_CACHE_URL", (edited.folder / "cache").as_uri())
    words = "watched/words.py"
    told = f"{words} changed: node it is loaded anew"
    again = ("first", "", lambda: None)
    for more in ({"cache": True}, {"cache": True, "warped": True, "warp_configuration": {"queue": "q"}}):
        edited.write(words, 'WORD = "one"\n')
        found = edited.run(
            "watched.nodes.Say", again, ("first", told, edited.change(words, "one", "two")), again, node=more
        )
        assert found == ["one first.", "one first.", "two first.", "two first."]
        for name in [name for name in sys.modules if name.partition(".")[0] == "watched"]:
            del sys.modules[name]
