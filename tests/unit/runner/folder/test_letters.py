"""The store of dead letters: what is kept, what goes, and what is not touched."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import CodecError, ConfigError, DefinitionError, Message, Pipeline
from celerypipe.definition.parts import DeadLetterLimits
from celerypipe.runner.folder.letter import NAME, name_of
from celerypipe.runner.folder.letters import DeadLetters
from tests.nodes.filing import made
from tests.servers import ROOT

WHY = {"error": "NodeFailed", "text": "no", "attempts": 2, "worker": "box, process 3", "traceback": "Traceback ..."}


def kept(store: DeadLetters, count: int, size: int = 0) -> list[Message]:
    messages = [Message(np.zeros(size, np.uint8) if size else number) for number in range(count)]
    for number, message in enumerate(messages):
        store.keep("read", message, WHY)
        at = 1_000_000_000 + number  # as files of different seconds
        path = store.folder / f"{name_of(message.id, 'read')}.json"
        if path.exists():
            path.write_text(json.dumps({**json.loads(path.read_text()), "at": at}))
            os.utime(path, (at, at))
    return messages


def ids(store: DeadLetters) -> list[str]:
    return [letter.message_id for letter in store.find().letters]


def test_a_letter_says_all_that_is_known_and_holds_its_message(tmp_path: Path) -> None:
    store = DeadLetters(tmp_path / "dead_letters")
    store.keep("read", Message(np.arange(3), meta={"page": 7}), {**WHY, "run": "abc", "pipeline": "pages"})
    (letter,) = store.find().letters
    assert (letter.node, letter.error, letter.attempts, letter.worker) == ("read", "NodeFailed", 2, "box, process 3")
    assert (letter.run, letter.pipeline, letter.traceback) == ("abc", "pages", "Traceback ...")
    assert letter.size == sum(path.stat().st_size for path in store.folder.iterdir())
    message = store.message(letter)
    assert (message.id, message.meta, message.payload.tolist()) == (letter.message_id, {"page": 7}, [0, 1, 2])


def test_one_message_that_dies_on_two_branches_is_two_letters_and_twice_on_one_is_one(tmp_path: Path) -> None:
    store = DeadLetters(tmp_path)
    message = Message(1)
    for node in ("left", "right", "right"):
        store.keep(node, message, WHY)
    found = {letter.node: letter.replays for letter in store.find().letters}
    assert found == {"left": 0, "right": 1}


def test_the_files_of_a_letter_stay_known_as_long_as_it_is_there(tmp_path: Path) -> None:
    store = DeadLetters(tmp_path / "dead_letters")
    file = made(tmp_path, "a.bin")
    known = weakref.ref(file)
    store.keep("read", Message([file]), WHY)
    del file
    gc.collect()
    assert known() is not None
    (letter,) = store.find().letters
    store.remove(letter.name)
    gc.collect()
    assert known() is None


@pytest.mark.parametrize("hostile", ["../../etc/x", "/x/y", ".hidden", "a\0b", "x" * 400, "ü", "\ud800", ""])
def test_no_id_leads_out_of_the_folder(tmp_path: Path, hostile: str) -> None:
    store = DeadLetters(tmp_path / "run" / "dead_letters")
    store.folder.parent.mkdir()
    store.keep("ein Knoten", Message(1, id=hostile), WHY)
    (letter,) = store.find().letters
    assert NAME.fullmatch(letter.name)
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {store.folder}
    assert store.remove(letter.name)
    assert not list(store.folder.iterdir())


def test_a_name_that_is_asked_for_leads_nowhere_else(tmp_path: Path) -> None:
    store = DeadLetters(tmp_path / "dead_letters")
    kept(store, 1)
    outside = tmp_path / "outside.json"
    outside.write_text('{"node": "read", "message": "x"}')
    with pytest.raises(ConfigError, match="no dead letter"):
        store.get("../outside")
    assert not store.remove("../outside")
    assert outside.exists()


def test_the_oldest_go_first_where_there_are_too_many_and_it_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    store = DeadLetters(tmp_path, limits=DeadLetterLimits(count=3, age=4e9), say=said.append)
    messages = kept(store, 6)
    assert ids(store) == [message.id for message in messages[3:]]
    (line,) = said
    assert "more than 3" in line


def test_the_bytes_of_all_are_capped_and_one_too_large_is_kept_without_its_message(tmp_path: Path) -> None:
    store = DeadLetters(tmp_path, limits=DeadLetterLimits(bytes=10_000, age=4e9))
    messages = kept(store, 4, size=4_000)
    assert ids(store) == [message.id for message in messages[2:]]
    kept(store, 1, size=20_000)
    large = next(letter for letter in store.find().letters if letter.not_kept)
    assert "more than dead_letters.bytes" in large.not_kept
    with pytest.raises(CodecError, match="could not be kept"):
        store.message(large)


def test_what_is_too_old_goes_when_a_run_begins(tmp_path: Path) -> None:
    kept(DeadLetters(tmp_path, limits=DeadLetterLimits(age=4e9)), 2)
    said: list[str] = []
    DeadLetters(tmp_path, limits=DeadLetterLimits(age=3600.0), say=said.append).expire()
    assert not list(tmp_path.glob("*.message"))
    assert "older than 3600 seconds" in said[0]


def test_what_is_no_letter_is_named_and_never_touched(tmp_path: Path) -> None:
    (letter,) = kept(DeadLetters(tmp_path, limits=DeadLetterLimits(age=4e9)), 1)
    strangers: dict[str, Any] = {
        "notes.txt": "mine",
        "half.json": '{"node": "re',
        "list.json": "[1]",
        "bare.json": '{"node": 3}',
        "deep.json": "[" * 100_000,
        "alone.message": "x",
        "my name.json": "{}",
    }
    for name, text in strangers.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "link.json").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    strangers |= {"link.json": None, "pipe.json": None, "folder.json": None}
    store = DeadLetters(tmp_path, limits=DeadLetterLimits(count=1, age=1.0))
    found = store.find()
    assert [one.message_id for one in found.letters] == [letter.id]
    assert sorted(line.partition(":")[0] for line in found.strange) == sorted(strangers)
    with pytest.raises(ConfigError, match=r"half\.json: is no JSON"):
        store.get("half")
    store.expire()
    assert {path.name for path in tmp_path.iterdir()} == set(strangers)


def test_a_letter_whose_message_is_broken_says_so_and_stays(tmp_path: Path) -> None:
    store = DeadLetters(tmp_path)
    for number, data in enumerate([b"", b"nonsense", None]):
        store.keep("read", Message(1, id=f"m{number}"), WHY)
        path = tmp_path / f"m{number}.read.message"
        path.unlink() if data is None else path.write_bytes(data)
    for letter, text in zip(store.find().letters, ["is no message", "is no message", "cannot be read"], strict=True):
        with pytest.raises(CodecError, match=f"{letter.name}.message: {text}"):
            store.message(letter)
    assert len(store.find().letters) == 3


def test_the_beginning_of_a_name_is_enough_where_it_says_which(tmp_path: Path) -> None:
    store = DeadLetters(tmp_path)
    for name in ("aa-1", "aa-2", "bb-1"):
        store.keep("read", Message(1, id=name), WHY)
    assert store.get("bb").message_id == "bb-1"
    assert store.get("aa-2.read").message_id == "aa-2"
    with pytest.raises(ConfigError, match="'aa' begins the names of 2 dead letters"):
        store.get("aa")
    with pytest.raises(ConfigError, match=r"did you mean 'bb-1\.read'"):
        store.get("bb_1.read")


def test_letters_of_one_folder_are_replayed_by_one_process_at_a_time(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\nfrom celerypipe.runner.folder.letters import DeadLetters\n"
        "with DeadLetters(pathlib.Path(sys.argv[1])).replaying():\n"
        "    print('mine', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)})
    assert other.stdout is not None
    assert other.stdin is not None
    assert other.stdout.readline() == b"mine\n"
    store = DeadLetters(tmp_path)
    with pytest.raises(ConfigError, match="being replayed already"), store.replaying():
        pass
    other.kill()
    other.wait()
    with store.replaying():
        assert store.find().strange == []
    other.stdin.close()
    other.stdout.close()


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("count", 0, "pipeline.dead_letters.count"),
        ("bytes", "1 GB", "pipeline.dead_letters.bytes"),
        ("age", -1.0, "pipeline.dead_letters.age"),
        ("day", 3, "pipeline.dead_letters.day"),
    ],
)
def test_limits_that_are_none_are_refused_with_their_place(key: str, value: Any, text: str) -> None:
    nodes = [{"name": "a", "type": "source", "mark": "data_streamer"}]
    with pytest.raises(DefinitionError, match=text):
        Pipeline.from_dict({"pipeline": {"name": "x", "nodes": nodes, "dead_letters": {key: value}}})
    kept = {"pipeline": {"name": "x", "nodes": nodes, "dead_letters": {"count": 5}}}
    pipeline = Pipeline.from_dict(kept)
    assert pipeline.dead_letters.count == 5
    assert pipeline.to_dict()["pipeline"]["dead_letters"] == {"count": 5}
