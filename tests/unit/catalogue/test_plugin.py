"""Plugin folders in juturna's layout: what is found in them, and what is said when one is broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.codec.digest import digest
from celerypipe.contract.contract import Proc
from celerypipe.errors import ConfigError, UnknownMark
from celerypipe.message.message import Message
from celerypipe.nodes.json_lines import JsonLinesSink
from tests.servers import Write

LABEL = """
from celerypipe import Message, Proc
from .words import WORD

class Label(Proc):
    '''Adds a label.

    At length.
    '''
    stateful = True
    version = "3"

    def __init__(self, label: str, times: int = 1, shape: tuple[int, int] = (2, 3)) -> None:
        if times < 1:
            raise ValueError(f"times: {times} is less than 1")
        self.label = label * times

    def update(self, message: Message) -> Message:
        return message.with_meta(label=self.label + WORD)
"""


@pytest.fixture
def plugins(tmp_path: Path, write: Write) -> Path:
    """A plugin folder with one proc, ``label``."""
    write("plugins/nodes/proc/_label/label.py", LABEL)
    write("plugins/nodes/proc/_label/words.py", "WORD = '!'")
    write("plugins/nodes/proc/_label/config.toml", "[arguments]\nlabel = 'new'\n\n[meta]\n")
    write("plugins/nodes/proc/_label/requirements.txt", "numpy\n")
    return tmp_path / "plugins"


def test_a_plugin_is_found_with_its_defaults_and_its_neighbours(plugins: Path) -> None:
    catalogue = Catalogue([plugins])
    entry, plugin = catalogue.find("label", "proc"), catalogue.plugin("label", "proc")
    assert (entry.origin, entry.defaults) == (f"plugin {plugins}", {"label": "new"})
    assert plugin is not None
    assert plugin.requirements == plugins / "nodes/proc/_label/requirements.txt"
    made = entry.create({"times": 2})
    assert isinstance(made, Proc)
    output = made.update(Message(None))
    assert isinstance(output, Message)
    assert output.meta["label"] == "newnew!"
    assert sys.modules[entry.node.__module__].__file__ == str(plugins / "nodes/proc/_label/label.py")


def test_equal_marks_in_two_folders_stay_apart_until_both_are_asked(
    plugins: Path, write: Write, tmp_path: Path
) -> None:
    write("other/nodes/proc/_label/label.py", "import celerypipe\nclass Other(celerypipe.Proc):\n    ...\n")
    assert Catalogue([tmp_path / "other"]).find("label").node.__name__ == "Other"
    assert Catalogue([plugins]).find("label").node.__name__ == "Label"
    with pytest.raises(ConfigError, match=r"provided by plugin .*plugins and by plugin .*other"):
        Catalogue([plugins, tmp_path / "other"]).find("label")


def test_a_plugin_named_like_a_built_in_is_refused(tmp_path: Path, write: Write) -> None:
    text = "import celerypipe\nclass Mine(celerypipe.Proc):\n    ...\n"
    write("plugins/nodes/proc/_passthrough_identity/passthrough_identity.py", text)
    write("plugins/nodes/proc/_json_lines/json_lines.py", text)
    catalogue = Catalogue([tmp_path / "plugins"])
    with pytest.raises(ConfigError, match=r"provided by built-in and by plugin"):
        catalogue.find("passthrough_identity", "proc")
    with pytest.raises(ConfigError, match=r"provided by built-in and by plugin"):
        catalogue.listings()
    assert catalogue.find("json_lines", "proc").node.__name__ == "Mine"
    assert catalogue.find("json_lines", "sink").node is JsonLinesSink


@pytest.mark.parametrize("mark", ["../label", "/etc/passwd", "..", "_label/label", "a b", "", "label/../label"])
def test_a_mark_never_leaves_the_plugin_folder(plugins: Path, mark: str) -> None:
    with pytest.raises(UnknownMark):
        Catalogue([plugins / "nodes", plugins]).find(mark, "proc")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("bad.py", "\nimport not_there_at_all\n", r"_bad/bad\.py does not import: line 2: ModuleNotFoundError"),
        ("bad.py", "x = 1\n", "defines none"),
        ("bad.py", "from celerypipe import Proc\nclass A(Proc): ...\nclass B(Proc): ...\n", "defines A, B"),
        (
            "bad.py",
            "from celerypipe import Sink\nclass A(Sink): ...\n",
            r"A is a sink; move its folder to .*nodes/sink",
        ),
        ("config.toml", "[arguments]\nx = \n", r"config\.toml: is not TOML: .*line 2"),
        ("config.toml", "arguments = 3\n", "must be a table"),
        ("config.toml", "[arguments]\nsiez = 3\n", "has 'siez', which Good does not take; did you mean 'size'"),
    ],
)
def test_a_broken_plugin_is_named_with_its_file(tmp_path: Path, write: Write, file: str, text: str, said: str) -> None:
    write(
        "p/nodes/proc/_bad/bad.py",
        "from celerypipe import Proc\nclass Good(Proc):\n    def __init__(self, size=1): ...",
    )
    write(f"p/nodes/proc/_bad/{file}", text)
    catalogue = Catalogue([tmp_path / "p"])
    with pytest.raises(ConfigError, match=said):
        catalogue.find("bad")
    with pytest.raises(ConfigError, match=said):
        catalogue.listings()
    refused: list[ConfigError] = []
    assert "bad" not in [entry.mark for entry in catalogue.listings(refused)]
    assert len(refused) == 1


def test_a_parent_class_beside_the_node_of_a_plugin_is_no_second_node(tmp_path: Path, write: Write) -> None:
    write("p/nodes/proc/_leaf/leaf.py", "from celerypipe import Proc\nclass Trunk(Proc): ...\nclass Leaf(Trunk): ...\n")
    assert Catalogue([tmp_path / "p"]).find("leaf").node.__name__ == "Leaf"


def test_a_plugin_that_takes_anything_takes_what_its_config_lists(tmp_path: Path, write: Write) -> None:
    write(
        "p/nodes/proc/_free/free.py",
        "from celerypipe import Proc\nclass Free(Proc):\n    def __init__(self, **all): self.all = all\n",
    )
    assert Catalogue([tmp_path / "p"]).find("free").complaints({"anything": 1}) == []
    write("p/nodes/proc/_free/config.toml", "[arguments]\nrate = 16000\n")
    entry = Catalogue([tmp_path / "p"]).find("free")
    assert "did you mean 'rate'" in entry.complaints({"rat": 1})[0].text
    assert vars(entry.create({}))["all"] == {"rate": 16000}


def test_a_schema_says_all_that_another_machine_must_know(plugins: Path) -> None:
    schema = Catalogue([plugins]).find("label").schema()
    # Without them an omitted default and the same value given would not be one thing to the cache.
    digests = [argument.pop("digest") for argument in schema["arguments"]]
    assert digests == [digest("new"), digest(1), digest((2, 3))]
    assert schema == {
        "mark": "label",
        "type": "proc",
        "stateful": True,
        "writable": False,
        "snapshots": False,
        "batches": False,
        "version": "3",
        "code": "version 3",
        "cache_meta": [],
        "doc": "Adds a label.",
        "arguments": [
            {"name": "label", "required": False, "default": "new", "annotation": "str"},
            {"name": "times", "required": False, "default": 1, "annotation": "int"},
            {"name": "shape", "required": False, "default": "(2, 3)", "annotation": "tuple[int, int]"},
        ],
        "open": False,
        "awaits": [],
    }


def test_a_constructor_that_refuses_its_values_is_a_config_error_without_them(plugins: Path) -> None:
    entry = Catalogue([plugins]).find("label")
    with pytest.raises(
        ConfigError, match=r"label cannot be made of label, times: ValueError: times: 0 is less"
    ) as raised:
        entry.create({"label": "s3cret", "times": 0})
    assert "s3cret" not in str(raised.value)
    assert isinstance(raised.value.__cause__, ValueError)
    with pytest.raises(ConfigError, match="has no argument 'tims'"):
        entry.create({"tims": 1})


def test_a_node_is_given_its_name_and_folder(plugins: Path, tmp_path: Path) -> None:
    made = Catalogue([plugins]).find("label").create({}, name="first", folder=tmp_path)
    assert (made.name, made.folder) == ("first", tmp_path)
