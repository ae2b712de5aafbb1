"""files, the source and the sink: any file, whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from celerypipe import Bytes, ConfigError, Message
from celerypipe.nodes.files import FilesSink, FilesSource


def load(**arguments: Any) -> list[Message]:
    source = FilesSource(**arguments)
    source.configure()
    return list(source.messages())


def save(folder: Path, *messages: Message, **arguments: Any) -> None:
    sink = FilesSink(str(folder), **arguments)
    sink.configure()
    sink.warmup()
    for message in messages:
        sink.update(message)


def test_files_are_read_and_written_as_they_are(tmp_path: Path) -> None:
    given = tmp_path / "in"
    (given / "deeper").mkdir(parents=True)
    (given / "b.pdf").write_bytes(b"\0\xff")
    (given / "a").write_bytes(b"")
    (given / ".hidden").write_bytes(b"x")
    (given / "._b.pdf").write_bytes(b"x")
    (given / "deeper" / "c.txt").write_text("c")
    messages = load(folder=str(given))
    assert [(message.meta["file"], message.payload.cnt) for message in messages] == [("a", b""), ("b.pdf", b"\0\xff")]
    assert [message.meta["name"] for message in load(folder=str(given), pattern="**/*.txt")] == ["c"]
    save(tmp_path / "out", *messages)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {"a": b"", "b.pdf": b"\0\xff"}


def test_hidden_files_are_left_out_by_a_pattern_too_unless_it_asks_for_them(tmp_path: Path) -> None:
    for name in ("a.wav", "._a.wav", ".kept/b.wav", "deeper/c.wav", "deeper/._c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(pattern: str) -> list[str]:
        return [message.meta["file"] for message in load(folder=str(tmp_path), pattern=pattern)]

    assert found("**/*.wav") == ["a.wav", "c.wav"]
    assert found("*.wav") == ["a.wav"]
    assert found(".*.wav") == ["._a.wav"]
    assert found(".kept/*") == ["b.wav"]
    assert found(f"../{tmp_path.name}/*.wav") == ["a.wav"]
    for pattern in ("", "/etc/*"):
        with pytest.raises(ValueError, match="is none for files below the folder"):
            found(pattern)


def test_a_link_that_leads_nowhere_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").symlink_to(tmp_path / "moved")
    source = FilesSource(folder=str(tmp_path))
    source.configure()
    messages = source.messages()
    assert next(messages).meta["file"] == "a"
    with pytest.raises(FileNotFoundError, match=r"/b'$"):
        next(messages)


def test_a_file_that_cannot_be_read_is_named_and_the_others_come(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    source = FilesSource(folder=str(tmp_path))
    source.configure()
    (tmp_path / "b").unlink()
    messages = source.messages()
    assert next(messages).payload.cnt == b"a"
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "b")):
        next(messages)
    assert [message.payload.cnt for message in messages] == [b"c"]
    assert source.total() == 3


def test_texts_and_bytes_are_written_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, Message("Grüße", meta={"name": "a"}), Message(b"b", meta={"name": "b"}), pattern="{name}.txt")
    save(tmp_path, Message(Bytes(b"c"), meta={"name": "../c"}), pattern="{name}.txt")
    assert (tmp_path / "a.txt").read_text("utf-8") == "Grüße"
    assert (tmp_path / "b.txt").read_bytes() == b"b"
    assert (tmp_path / "___c.txt").read_bytes() == b"c"
    with pytest.raises(TypeError, match="files writes Bytes, bytes or a text, not dict"):
        save(tmp_path, Message({}, meta={"file": "x"}))
    with pytest.raises(LookupError, match="asks for 'file'; this message's meta has 'name'; write a pattern of those"):
        save(tmp_path, Message("x", meta={"name": "x"}))
    with pytest.raises(ValueError, match="leads out of the folder"):
        FilesSink("out", "../{name}")


def test_an_empty_folder_is_told_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file in the folder '.*'; correct 'folder' or 'pattern'"):
        load(folder=str(tmp_path))
    with pytest.raises(ConfigError, match=r"no file matches '\*\.pdf'"):
        load(folder=str(tmp_path), pattern="*.pdf")
