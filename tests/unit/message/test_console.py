"""Consoles by themselves: what is caught, how it is cut, how it travels."""

from __future__ import annotations

import contextlib
import contextvars
import io
import logging
import sys
import threading
import time

import pytest

from celerypipe import CodecError, Console, Message
from celerypipe.catalogue.capture import PIECE, Recorder, captured
from celerypipe.message.console import Line, console_of
from tests.nodes import printing


def caught(words: str = "x") -> Console:
    recorder = Recorder()
    with captured(recorder):
        printing.Talk().update(Message(words))
    return recorder.console("here")


def test_all_that_goes_through_python_is_caught_and_still_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="warned one"):
        console = caught("one")
    assert console.of("stdout") == "print one\nwrite one\nhalf a line one"
    errors = console.of("stderr")
    assert "error one\n" in errors
    shown = capsys.readouterr()
    assert shown.out == console.of("stdout")
    assert "error one\n" in shown.err


def test_a_log_handler_that_was_there_before_is_caught_too() -> None:
    terminal = io.StringIO()
    log = logging.getLogger("tests.console")
    with contextlib.redirect_stderr(terminal):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        log.addHandler(handler)
        try:
            recorder = Recorder()
            with captured(recorder):
                log.warning("careful")
            log.warning("later")
        finally:
            log.removeHandler(handler)
    assert recorder.console().of("stderr") == "WARNING careful\n"
    assert terminal.getvalue() == "WARNING careful\nWARNING later\n"


def test_what_is_printed_outside_is_nobodys(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder()
    with captured(recorder):
        print("inside")
    print("outside")
    with captured(None):
        print("nobody asked")
    assert recorder.console().text == "inside\n"
    assert capsys.readouterr().out == "inside\noutside\nnobody asked\n"


def test_two_threads_do_not_mix() -> None:
    recorders = [Recorder(), Recorder()]

    def talk(recorder: Recorder, word: str) -> None:
        with captured(recorder):
            printing.Chat(0.001).update(Message(word))

    threads = [threading.Thread(target=talk, args=pair) for pair in zip(recorders, ("left", "right"), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [recorder.console().text for recorder in recorders] == [
        "left.0\nleft.1\nleft.2\n",
        "right.0\nright.1\nright.2\n",
    ]


def test_a_thread_of_the_node_is_caught_in_its_context() -> None:
    recorder = Recorder()
    with captured(recorder):
        context = contextvars.copy_context()
        inside = threading.Thread(target=context.run, args=(print, "in the context"))
        outside = threading.Thread(target=print, args=("without",))
        for thread in (inside, outside):
            thread.start()
            thread.join()
    assert recorder.console().text == "in the context\n"


def test_each_line_has_its_time_and_its_stream() -> None:
    recorder = Recorder()
    recorder.write("stdout", "a, ")
    recorder.write("stdout", "b\n")
    time.sleep(0.01)
    recorder.write("stderr", "c\nd\n")
    recorder.write("stdout", "e")
    console = recorder.console("box, process 1")
    assert [(line.stream, line.text) for line in console.lines] == [
        ("stdout", "a, b\n"),
        ("stderr", "c\n"),
        ("stderr", "d\n"),
        ("stdout", "e"),
    ]
    times = [line.at for line in console.lines]
    assert times == sorted(times)
    assert times[1] - times[0] >= 0.01
    assert 0 <= time.time() - console.ended < 5
    assert console.ended - console.started == pytest.approx(console.seconds, abs=1e-3)
    assert console.worker == "box, process 1"


@pytest.mark.parametrize("one_line", [True, False])
def test_of_much_the_first_and_the_last_part_are_kept(one_line: bool) -> None:
    recorder = Recorder(most=20_000)
    whole = "".join(f"{number:06d}{' ' if one_line else chr(10)}" for number in range(20_000))
    if one_line:
        recorder.write("stdout", whole)
    else:
        for line in whole.splitlines(keepends=True):
            recorder.write("stdout", line)
    console = recorder.console()
    (cut,) = [line for line in console.lines if not line.stream]
    first, last = console.text.split(cut.text)
    assert whole.startswith(first)
    assert whole.endswith(last)
    assert 10_000 <= len(first) <= 10_000 + PIECE
    assert 10_000 <= len(last) <= 10_000 + PIECE
    assert console.cut == len(whole) - len(first) - len(last)
    assert cut.text == f"… {console.cut:,} characters left out …\n"


def test_a_console_travels_exactly() -> None:
    recorder = Recorder()
    recorder.write("stdout", "grüße \udc80\n".encode("utf-8", "replace").decode())
    recorder.write("stderr", "x")
    console = recorder.console("there")
    assert console_of(console.pack(), "there") == console
    assert console_of(b"", "there") is None
    assert console.to_dict()["lines"][1] == [console.lines[1].at, "stderr", "x"]


def test_what_is_no_text_is_refused_as_ever_and_spoils_nothing() -> None:
    recorder = Recorder()
    with contextlib.redirect_stdout(io.StringIO()), captured(recorder):
        with pytest.raises(TypeError):
            sys.stdout.write(b"bytes")  # type: ignore[arg-type]
        print("text")
    assert recorder.console().text == "text\n"


def test_a_lone_surrogate_does_not_fail_the_message() -> None:
    recorder = Recorder()
    recorder.write("stdout", "name \udcff.txt\n")
    found = console_of(recorder.console().pack(), "")
    assert found is not None
    assert found.text == "name \\udcff.txt\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\x94",
        b"nothing",
        Console((Line(-1.0, "stdout", "x"),)).pack(),
        Console((), float("nan")).pack(),
        Console((), 0.0, 1e300).pack(),
        Console((Line(0.0, "nowhere", "x"),)).pack(),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_console_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError, match="malformed console"):
        console_of(data, "")
