"""The journal's file: whole lines, a lock, and nonsense."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celerypipe.contract.positions import Positions
from celerypipe.errors import ConfigError
from celerypipe.message.message import Message
from celerypipe.nodes.json_lines import JsonLinesSink
from celerypipe.nodes.parts.written import Written
from celerypipe.process import forks
from celerypipe.runner.folder.journal import FILE, Journal, JournalContent, NoJournal, parse
from celerypipe.runner.folder.progress import Progress


def made(place: Path) -> Journal:
    return Journal.create(place, JournalContent(["aaaa"], "story", time.time(), {"node": "digest"}))


def test_what_is_noted_is_there_again(tmp_path: Path) -> None:
    journal = made(tmp_path / "one")
    journal.note({"lines": Positions([1, 2, 4])}, {"lines": 4})
    journal.note({"lines": Positions([3]), "files": Positions(["é.png", "\udc80.png"])}, {"files": 2})
    journal.close()
    again = Journal.open(tmp_path / "one", "bbbb")
    assert again.content.runs == ["aaaa", "bbbb"]
    assert again.content.parts == {"node": "digest"}
    assert again.content.through["lines"].to_list() == [[1, 4]]
    assert "\udc80.png" in again.content.through["files"]
    assert again.content.following == {"lines": 4, "files": 2}
    assert again.content.count == 6
    again.remove()
    assert not (tmp_path / "one").exists()


def test_half_a_line_at_the_end_counts_for_nothing(tmp_path: Path) -> None:
    journal = made(tmp_path / "one")
    journal.note({"lines": Positions([1])}, {})
    journal.close()
    path = tmp_path / "one" / FILE
    whole = path.read_bytes()
    line = b'{"through":{"lines":[[2,2]]},"following":{}}\n'
    for length in range(len(line)):
        path.write_bytes(whole + line[:length])
        again = Journal.open(tmp_path / "one", "bbbb")
        assert again.content.count == 1
        again.note({"lines": Positions([3])}, {})
        again.close()
        assert parse(path.read_bytes()).through["lines"].to_list() == [[1, 1], [3, 3]]


def test_it_is_written_again_when_it_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celerypipe.runner.folder.journal.REWRITE", 2000)
    journal = made(tmp_path / "one")
    sizes = []
    for number in range(0, 600, 2):
        journal.note({"lines": Positions([number])}, {})
        journal.note({"lines": Positions([number + 1])}, {})
        sizes.append((tmp_path / "one" / FILE).stat().st_size)
    assert max(sizes) < 5000
    assert parse((tmp_path / "one" / FILE).read_bytes()).through["lines"].to_list() == [[0, 599]]
    with pytest.raises(ConfigError, match="in use: that run is still active"):
        Journal.open(tmp_path / "one", "bbbb")
    journal.close()
    assert os.listdir(tmp_path / "one") == [FILE]


def kept_journals() -> set[object]:
    return {thing for thing in forks._kept if isinstance(thing, Journal)}


def test_one_that_cannot_be_written_again_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celerypipe.runner.folder.journal.REWRITE", 2000)
    others = kept_journals()  # what other tests left behind
    journal = made(tmp_path / "one")
    draft = tmp_path / "one" / f".{os.getpid()}.part"
    draft.mkdir()  # in the way
    for number in range(0, 600, 2):
        journal.note({"lines": Positions([number])}, {})
    assert parse((tmp_path / "one" / FILE).read_bytes()).count == 300
    journal.close()
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        Journal.open(tmp_path / "one", "bbbb")
    del journal
    gc.collect()
    # A fork would close what has its number by then.
    assert not kept_journals() - others
    draft.rmdir()
    again = Journal.open(tmp_path / "one", "bbbb")
    assert again.content.runs == ["aaaa", "bbbb"]
    again.close()


def test_the_lock_dies_with_its_process_whatever_children_it_has(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from celerypipe.runner.folder.journal import Journal, JournalContent\n"
        "journal = Journal.create(Path(sys.argv[1]), JournalContent(['aaaa'], 'story', 1.0))\n"
        "if not os.fork(): print('made', flush=True)\n"
        "sys.stdin.read()"
    )
    place = tmp_path / "one"
    process = subprocess.Popen([sys.executable, "-c", code, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"made\n"
    with pytest.raises(ConfigError, match="still active"):
        Journal.open(place, "bbbb")
    process.kill()
    process.wait()
    Journal.open(place, "bbbb").close()  # its child lives on
    process.communicate()


HEAD = {"celerypipe_journal": 1, "runs": ["aaaa"], "pipeline": "p", "started": 1.0, "parts": {}}


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "no whole line"),
        (["shopping"], "line 1 is no JSON"),
        (["[" * 100_000], "line 1 is no JSON"),
        ([7], "line 1 is no object"),
        ([{"a": 1}], "does not begin as a journal does"),
        ([{**HEAD, "celerypipe_journal": 2}], "its form is 2, not 1"),
        ([{**HEAD, "runs": []}], "line 1 is damaged"),
        ([{**HEAD, "runs": ["../../etc"]}], "line 1 is damaged"),
        ([{**HEAD, "runs": "aaaa"}], "line 1 is damaged"),
        ([{**HEAD, "started": "now"}], "line 1 is damaged"),
        ([HEAD, {}], "line 2 is damaged"),
        ([HEAD, {"through": [], "following": {}}], "line 2 is damaged"),
        ([HEAD, {"through": {"a": [[2, 1]]}, "following": {}}], "line 2 is damaged"),
        ([HEAD, {"through": {}, "following": {"a": "x"}}], "line 2 is damaged"),
        ([HEAD, "torn in the middle"], "line 2 is no object"),
    ],
)
def test_nonsense_is_named_by_its_line(lines: list[object], complaint: str, tmp_path: Path) -> None:
    texts = [line if isinstance(line, str) and line[0] in "s[" else json.dumps(line) for line in lines]
    data = "".join(f"{text}\n" for text in texts).encode()
    with pytest.raises(NoJournal, match=complaint):
        parse(data)
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(ConfigError, match=f"{FILE} is no journal: .*{complaint}"):
        Journal.open(tmp_path, "bbbb")
    assert (tmp_path / FILE).read_bytes() == data


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b'{"celerypipe_journal":1,"runs":["aaaa"],"pipeline":"p","started":1,"parts":7}\nnull\n')
def test_any_bytes_are_a_journal_or_none(data: bytes) -> None:
    with contextlib.suppress(NoJournal):
        assert isinstance(parse(data), JournalContent)


def test_a_full_disk_is_said_once_and_the_run_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    journal = made(tmp_path / "one")
    (tmp_path / "one" / FILE).rename(tmp_path / "kept")
    file, journal._file = journal._file, os.open("/dev/full", os.O_RDWR)
    progress = Progress(journal, said.append)
    for number in range(3):
        message = Message(number, origin=f"m{number}")
        progress.begin("lines", number, number, message.origin)
        progress.begun(message.origin)
        progress.flush()
    assert len(said) == 1
    assert "No space left on device" in said[0]
    os.close(journal._file)
    journal._file = file
    progress.flush()
    assert parse((tmp_path / "kept").read_bytes()).count == 3
    journal.close()


def test_a_message_is_through_when_nothing_of_it_is_left(tmp_path: Path) -> None:
    progress = Progress(made(tmp_path / "one"), print)

    def through() -> list[object]:
        progress.flush()
        return progress.through("lines").to_list()

    a, b = (Message(name, origin=name) for name in "ab")
    for number, message in enumerate((a, b)):
        progress.begin("lines", number, number, message.origin)
        progress.descent.sent(message, None, 2)
        progress.begun(message.origin)
    progress.descent.left(a)
    progress.descent.joined(a, [a, b])  # one of each, with the origin of a
    assert through() == []
    progress.descent.left(b)
    assert through() == []
    progress.descent.sent(a, None)
    progress.descent.left(a)
    progress.descent.left(a)
    assert through() == [[0, 1]]
    progress.descent.left(a)  # a late one is nobody's
    assert progress.key("file", a) == ""
    assert progress.close(done=True) == 0


def test_a_key_tells_apart_what_one_message_became(tmp_path: Path) -> None:
    progress = Progress(made(tmp_path / "one"), print)
    progress.begin("lines", 7, 0, "a")
    left, right = (Message(0, origin="a", creator=name) for name in ("left", "right"))
    assert [progress.key(sink, message) for sink in ("x", "y") for message in (left, right, left)] == [
        "lines/7/left/x/0",
        "lines/7/right/x/0",
        "lines/7/left/x/1",
        "lines/7/left/y/0",
        "lines/7/right/y/0",
        "lines/7/left/y/1",
    ]
    assert progress.key("x", Message(0, origin="stranger")) == ""
    progress.close(done=True)


@pytest.mark.parametrize(
    ("size", "torn", "as_left", "end"),
    [
        (20, 0, True, 20),
        (15, 0, True, 15),  # killed between the note and the line
        (17, 0, True, 15),  # or in the middle of the line
        (15, 3, True, 15),  # or of the note
        (21, 0, False, 20),
        (14, 0, False, 20),
        (0, 0, False, 20),
    ],
)
def test_a_file_is_told_from_a_changed_one(tmp_path: Path, size: int, torn: int, as_left: bool, end: int) -> None:
    path = tmp_path / "file.written"
    written = Written(path)
    written.add("", 10)
    written.add("a", 5)
    written.add("b", 5)
    written.close()
    path.write_bytes(path.read_bytes()[: -torn or None])
    again = Written(path)
    assert again.begun
    assert again.settle(size) is as_left
    assert (again.end, "a" in again, "b" in again) == (end, True, end == 20)
    again.add("c", 1)
    again.close()
    last = Written(path)
    assert (last.end, "b" in last, "c" in last) == (end + 1, end == 20, True)
    last.close()


def test_a_full_disk_leaves_neither_half_a_line_nor_its_note(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from celerypipe.message.message import Message; from celerypipe.nodes.json_lines import JsonLinesSink\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sink = JsonLinesSink(sys.argv[1]); sink.record = Path(sys.argv[2]); sink.warmup()\n"
        "sink.update_once(Message('a'), 'a')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 1000))\n"
        "try: sink.update_once(Message('b' * 200), 'b')\n"
        "except OSError: print('refused')\n"
        "sink.update_once(Message('c'), 'c')\n"
    )
    command = [sys.executable, "-c", code, out, tmp_path / "file.written"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"refused\n"
    assert out.read_text() == '"a"\n"c"\n'
    written = Written(tmp_path / "file.written")
    assert written.settle(8)
    assert [key in written for key in "abc"] == [True, False, True]
    written.close()


def test_lines_that_other_runs_appended_stay(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("1\n2")
    for keys in (("a", "b"), ("b", "c")):
        sink = JsonLinesSink(str(out), append=True)
        sink.record = tmp_path / "file.written"
        sink.warmup()
        for key in keys:
            sink.update_once(Message(key), key)
        sink.destroy()
    assert out.read_text() == '1\n2\n"a"\n"b"\n"c"\n'
