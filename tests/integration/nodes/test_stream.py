"""The nodes that need nothing outside: data_streamer, passthrough_identity, console."""

from __future__ import annotations

import queue
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from celerypipe.message.message import Message
from celerypipe.message.payload import Audio, Batch, Bytes, Image, Object
from celerypipe.nodes import data_streamer
from celerypipe.nodes.console import ConsoleSink
from celerypipe.nodes.data_streamer import DataStreamer
from celerypipe.nodes.passthrough_identity import PassthroughIdentity


class Clock:
    """A clock that only moves when somebody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, source: DataStreamer) -> None:
        self.now = 100.0
        monkeypatch.setattr(data_streamer, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(source, "_stopped", SimpleNamespace(wait=self.wait))

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return False


def test_without_arguments_it_sends_ten_numbers_one_a_second(monkeypatch):
    source = DataStreamer()
    clock = Clock(monkeypatch, source)
    sent = [(message.payload, message.version, clock.now - 100.0) for message in source.messages()]
    assert sent == [(n, n, float(n)) for n in range(10)]


def test_a_pipeline_that_is_busy_shifts_no_later_message(monkeypatch):
    source = DataStreamer(count=8, rate=2.0)
    clock = Clock(monkeypatch, source)
    sent = []
    for message in source.messages():
        sent.append(clock.now - 100.0)
        clock.now += 1.2 if message.payload == 2 else 0.3
    assert sent == pytest.approx([0, 0.5, 1.0, 2.2, 2.5, 2.8, 3.1, 3.5])


def test_the_rate_holds_by_the_real_clock():
    start = time.monotonic()
    assert len(list(DataStreamer(count=6, rate=100).messages())) == 6
    assert time.monotonic() - start >= 0.05


def test_given_items_are_the_payloads_and_dictionaries_become_objects():
    items = [{"text": "hello"}, 3, [1, 2], None, np.arange(3)]
    sent = [message.payload for message in DataStreamer(items=items, rate=0).messages()]
    assert isinstance(sent[0], Object)
    assert sent[0].text == "hello"
    assert sent[1:4] == [3, [1, 2], None]
    assert sent[4] is items[4]


def test_a_count_of_zero_sends_nothing():
    assert list(DataStreamer(count=0).messages()) == []


def test_stop_ends_the_wait_for_the_next_item():
    source = DataStreamer(count=5, rate=0.001)
    arrived: queue.Queue[int] = queue.Queue()

    def consume() -> None:
        for message in source.messages():
            arrived.put(message.payload)

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    assert arrived.get(timeout=10) == 0
    source.stop()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert arrived.empty()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"items": [1], "count": 1}, "items and count: give one of them"),
        ({"items": "abc"}, "items: 'abc' is no list"),
        ({"count": -1}, "count: -1 is out of range"),
        ({"count": 2.5}, "count: 2.5 is no whole number"),
        ({"rate": "fast"}, "rate: 'fast' is no number"),
        ({"rate": -1}, "rate: -1 is out of range"),
        ({"rate": float("nan")}, "rate: nan is out of range"),
        ({"rate": True}, "rate: True is no number"),
    ],
)
def test_a_wrong_argument_of_the_streamer_is_named(arguments, said):
    with pytest.raises((TypeError, ValueError), match=said):
        DataStreamer(**arguments)


def test_passthrough_sends_on_the_message_itself_after_its_delay():
    message = Message(Object(n=1), meta={"a": 1})
    start = time.monotonic()
    assert PassthroughIdentity(delay=0.05).update(message) is message
    assert time.monotonic() - start >= 0.05
    assert PassthroughIdentity().update(message) is message


def test_passthrough_refuses_a_negative_delay():
    with pytest.raises(ValueError, match="delay: -1"):
        PassthroughIdentity(delay=-1)


def test_the_console_prints_one_line_a_message(capsys):
    console = ConsoleSink()
    for payload in ("two\nlines \x1b[31m", {"n": 1, "é": [1.5, None]}, 7):
        console.update(Message(payload))
    assert capsys.readouterr().out == 'two\\nlines \\x1b[31m\n{"n": 1, "é": [1.5, null]}\n7\n'


def test_the_console_names_arrays_by_shape_instead_of_printing_them(capsys):
    console = ConsoleSink()
    picture = Image(np.zeros((480, 640, 3), np.uint8), 640, 480, 3, "RGB")
    sound = Audio(np.zeros(16000, np.int16), 16000)
    for payload in (
        picture,
        sound,
        np.zeros(3),
        Bytes(b"abc"),
        Batch((Message(picture), Message(1))),
        {"x": np.eye(2)},
    ):
        console.update(Message(payload))
    assert capsys.readouterr().out.splitlines() == [
        "<Image 480×640×3 uint8 RGB>",
        "<Audio 16000 int16 at 16000 Hz>",
        "<array 3 float64>",
        "<3 bytes>",
        '["<Image 480×640×3 uint8 RGB>", 1]',
        '{"x": "<array 2×2 float64>"}',
    ]


def test_the_console_cuts_a_long_line_but_never_the_json(capsys):
    message = Message("x" * 500, id="m-1")
    ConsoleSink(width=10).update(message)
    ConsoleSink(format="{json}", width=10).update(message)
    cut, whole = capsys.readouterr().out.splitlines()
    assert cut == "xxxxxxxxx…"
    assert whole == message.to_json()


def test_the_console_fills_in_its_format_and_writes_to_the_stream_it_is_told(capsys):
    ConsoleSink(format="{creator}#{sequence:03d} {meta[name]}: {payload}", stream="stderr").update(
        Message("hi", meta={"name": "page"}, creator="ocr", sequence=7)
    )
    captured = capsys.readouterr()
    assert captured.err == "ocr#007 page: hi\n"
    assert captured.out == ""


def test_the_console_names_the_meta_entry_that_a_message_lacks():
    with pytest.raises(LookupError, match=r"asks for meta 'nam'; this message's meta has 'name'"):
        ConsoleSink(format="{meta[nam]}").update(Message(1, meta={"name": "x"}))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"format": "{paylod}"}, "asks for 'paylod'; the fields are payload, json"),
        ({"format": "{payload"}, "is no format"),
        ({"stream": "stdin"}, "stream: 'stdin' is unknown; write one of 'stdout', 'stderr'"),
        ({"width": -1}, "width: -1"),
    ],
)
def test_a_wrong_argument_of_the_console_is_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        ConsoleSink(**arguments)
