"""The streams of a worker: files as any process has them, and one line of the log for each line."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from celerypipe.process.log import at_work
from celerypipe.process.log import said as prefix
from celerypipe.worker.streams import LONGEST, LogStream


@pytest.fixture
def said() -> list[str]:
    """What went to the log, behind what was worked on."""
    return []


@pytest.fixture
def stream(tmp_path: Path, said: list[str]) -> Iterator[LogStream]:
    with (tmp_path / "output").open("w", encoding="utf-8") as file:
        yield LogStream(file, lambda text: said.append(f"{prefix(at_work.get())}{text}"))


def test_a_line_of_the_log_is_a_line_however_often_it_is_written_to(stream: LogStream, said: list[str]) -> None:
    print("frame", 3, "of", 5, file=stream)
    print("no end", end="", file=stream)
    print(" yet", file=stream)
    print(file=stream)
    print("two\r\nlines", file=stream)
    assert stream.write("12345") == 5
    assert said == ["frame 3 of 5", "no end yet", "two", "lines"]
    stream.flush()
    assert said[4:] == ["12345"]
    stream.writelines(["x" * LONGEST, "x"])
    assert said[5:] == ["x" * (LONGEST + 1)]


def test_a_bar_of_progress_is_one_line(stream: LogStream, said: list[str]) -> None:
    for percent in range(0, 101, 10):
        print(f"\r{percent:3} %", end="", file=stream, flush=True)
    assert said == []
    print(file=stream)
    assert said == ["100 %"]
    print("\rgone", end="\r    \r", file=stream)  # a bar that takes itself away
    stream.settle()
    assert said == ["100 %"]


def test_threads_and_messages_do_not_mix(stream: LogStream, said: list[str]) -> None:
    print("mine", end="", file=stream)
    thread = threading.Thread(target=lambda: stream.write("theirs"))
    thread.start()
    thread.join()
    print(" ends", file=stream)
    assert said == ["mine ends"]
    before = at_work.set(("r", "n", "1"))
    print("half", end="", file=stream)
    at_work.set(("r", "n", "2"))
    print("whole", file=stream)
    at_work.reset(before)
    stream.settle()  # nobody will end the line of a thread that is no more
    assert said == ["mine ends", "run r node n message 1: half", "run r node n message 2: whole", "theirs"]


def test_it_is_a_file_as_in_any_process(stream: LogStream, said: list[str], tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert isinstance(stream, io.TextIOBase)
    assert (stream.encoding, stream.mode, stream.closed, stream.writable()) == ("utf-8", "w", False, True)
    assert os.fstat(stream.fileno()) == os.stat(output)
    stream.buffer.write(b"\xff\n")
    stream.flush()
    subprocess.run(["echo", "from a child"], stdout=stream, check=True)
    assert output.read_bytes() == b"\xff\nfrom a child\n"
    with contextlib.redirect_stdout(stream):
        print("here")
    with pytest.raises(TypeError, match="must be str, not bytes"):
        stream.write(b"bytes")  # type: ignore[arg-type]
    print("\udce9", file=stream)
    stream.close()
    print("still open", file=stream)
    assert said == ["here", "\\udce9", "still open"]


def test_a_log_that_fails_says_so_on_the_stream_itself(tmp_path: Path) -> None:
    with (tmp_path / "output").open("w") as file:
        stream = LogStream(file, lambda text: print(f"cannot log {text}", file=stream))
        print("this", file=stream)
        assert (tmp_path / "output").read_text() == "cannot log this\n"


def test_a_child_leaves_what_its_parent_began(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from celerypipe.worker.streams import LogStream\n"
        "sys.stdout = LogStream(sys.stdout, lambda text: os.write(1, text.encode() + b'\\n'))\n"
        "print('begun', end='')\n"
        "if not os.fork():\n"
        "    print('child')\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(', ended')"
    )
    said = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said.splitlines() == ["child", "begun, ended"]
