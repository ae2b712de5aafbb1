"""json_lines, the source and the sink; and what image_files says where OpenCV is missing."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from celerypipe.errors import ConfigError
from celerypipe.message.message import Message
from celerypipe.message.payload import Object
from celerypipe.nodes.json_lines import JsonLinesSink, JsonLinesSource


def read(path: Path) -> list[Message]:
    source = JsonLinesSource(str(path))
    try:
        source.configure()
        source.warmup()
        return list(source.messages())
    finally:
        source.destroy()


def write(path: Path, *payloads: object, **arguments: object) -> None:
    sink = JsonLinesSink(str(path), **arguments)
    try:
        sink.configure()
        sink.warmup()
        for payload in payloads:
            sink.update(payload if isinstance(payload, Message) else Message(payload))
    finally:
        sink.destroy()


def test_each_line_becomes_a_message_and_empty_lines_are_passed_over(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes('{"text": "héllo"}\n\n  \n[1, 2]\r\n"x"\nnull\n3.5'.encode())
    messages = read(path)
    assert [message.payload for message in messages] == [{"text": "héllo"}, [1, 2], "x", None, 3.5]
    assert [message.version for message in messages] == [1, 4, 5, 6, 7]
    assert isinstance(messages[0].payload, Object)


def test_lines_longer_than_one_read_stay_whole(tmp_path):
    path = tmp_path / "in.jsonl"
    values = ["é" * length for length in (10, 65_535, 65_536, 200_000, 3)]
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    assert [message.payload for message in read(path)] == values


def test_an_empty_file_sends_nothing(tmp_path):
    (tmp_path / "in.jsonl").touch()
    assert read(tmp_path / "in.jsonl") == []


@pytest.mark.parametrize("bad", [b'{"a": ', b"\xff\xfe", b"[" * 200_000, b"hello"])
def test_a_bad_line_is_named_by_file_and_line(tmp_path, bad):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"1\n2\n" + bad + b"\n4\n")
    with pytest.raises(ValueError, match=r"in\.jsonl:3: not JSON .*; correct or remove this line"):
        read(path)


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl: cannot be read: No such file"):
        read(tmp_path / "nowhere.jsonl")


def test_a_pipe_cannot_be_read_a_second_time(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    writing = os.open(tmp_path / "fifo", os.O_RDWR)
    source = JsonLinesSource(str(tmp_path / "fifo"))
    source.configure()
    os.write(writing, b"1\n")
    message = next(source.messages())
    assert source.position(message) is None
    with pytest.raises(ConfigError, match=r"fifo: cannot be read a second time, so the run cannot be resumed"):
        source.seek([1])
    source.destroy()
    os.close(writing)


def test_standard_input_is_read_line_by_line_as_it_comes():
    code = (
        "from celerypipe.nodes.json_lines import JsonLinesSource as S\n"
        "source = S('-'); source.configure()\n"
        "for message in source.messages(): print(message.payload, flush=True)\n"
        "source.destroy()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for number in (1, 2):  # the answer to the first is awaited before the second is written
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{number}\n"
        process.stdin.close()
        assert process.wait(timeout=20) == 0


def test_stop_ends_the_wait_for_a_line_that_never_comes(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR)
    source = JsonLinesSource(str(fifo))
    source.configure()
    arrived: queue.Queue[object] = queue.Queue()

    def consume() -> None:
        for message in source.messages():
            arrived.put(message.payload)

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    os.write(writer, b"1\n")
    assert arrived.get(timeout=10) == 1
    source.stop()
    thread.join(timeout=10)
    assert not thread.is_alive()
    source.destroy()
    source.stop()  # too late, and no harm
    os.close(writer)


def test_what_the_sink_wrote_the_source_reads(tmp_path):
    path = tmp_path / "made" / "on the way" / "out.jsonl"
    write(path, {"text": "héllo\nworld"}, [1, 2], "a", None, Object(x=np.arange(3)))
    assert [message.payload for message in read(path)] == [
        {"text": "héllo\nworld"},
        [1, 2],
        "a",
        None,
        {"x": [0, 1, 2]},
    ]


def test_a_whole_message_keeps_its_id_meta_and_place(tmp_path):
    write(
        tmp_path / "out.jsonl",
        Message({"a": 1}, meta={"name": "page"}, origin="o-1", sequence=3, id="m-1"),
        content="message",
    )
    line = json.loads((tmp_path / "out.jsonl").read_text())
    assert (line["id"], line["origin"], line["sequence"]) == ("m-1", "o-1", 3)
    assert (line["payload"], line["meta"]) == ({"a": 1}, {"name": "page"})


def test_a_second_run_replaces_or_appends_as_told(tmp_path):
    path = tmp_path / "out.jsonl"
    write(path, 1)
    write(path, 2)
    assert path.read_text() == "2\n"
    write(path, 3, append=True)
    assert path.read_text() == "2\n3\n"


def test_appending_starts_a_new_line_after_a_half_one(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"a": 1')
    write(path, 2, append=True)
    assert path.read_text() == '{"a": 1\n2\n'


def test_a_lone_surrogate_is_written_as_json_spells_it(tmp_path):
    write(tmp_path / "out.jsonl", "a\udc80b")
    assert (tmp_path / "out.jsonl").read_bytes() == b'"a\\udc80b"\n'
    assert read(tmp_path / "out.jsonl")[0].payload == "a\udc80b"


def test_a_killed_process_leaves_whole_lines_but_perhaps_the_last(tmp_path):
    """Linux may break a write off between two pages when its process is killed."""
    path = tmp_path / "out.jsonl"
    code = (
        "import sys; from celerypipe.message.message import Message\n"
        "from celerypipe.nodes.json_lines import JsonLinesSink as S\n"
        "sink = S(sys.argv[1]); sink.warmup(); n = 0\n"
        "while True:\n"
        "    sink.update(Message({'n': n, 'text': 'x' * 5000})); n += 1\n"
        "    if n == 50: print('go', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"go\n"
        process.kill()
    *lines, tail = path.read_bytes().split(b"\n")
    assert len(lines) >= 50
    assert [json.loads(line)["n"] for line in lines] == list(range(len(lines)))
    assert json.dumps({"n": len(lines), "text": "x" * 5000}).encode().startswith(tail)


def test_a_sink_that_cannot_write_says_where(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/out\.jsonl: cannot be written"):
        write(tmp_path / "file" / "out.jsonl", 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here: a full disk cannot be shown")
def test_a_full_disk_is_an_error_not_a_lost_line():
    with pytest.raises(OSError, match="No space left"):
        write(Path("/dev/full"), 1)


def test_wrong_arguments_of_json_lines_are_named(tmp_path):
    with pytest.raises(ValueError, match="content: 'all' is unknown; write one of 'payload', 'message'"):
        JsonLinesSink(str(tmp_path / "x"), content="all")
    with pytest.raises(ValueError, match="use the sink console"):
        JsonLinesSink("-")


def test_image_files_without_opencv_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['cv2'] = None; import celerypipe.nodes.image_files"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ImportError: image_files needs OpenCV")
    assert last_line.endswith("pip install 'celerypipe[vision]'")
