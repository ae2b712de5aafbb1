"""Lines of machines whose clocks differ stand in the order in which they were written, also when some come late."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from celerypipe import LogLine
from celerypipe.mailbox import logs
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.logs import LogPiece, LogReader, packed, shipping
from celerypipe.redis import keys
from celerypipe.redis.signing import Keyring
from celerypipe.runner.logs.incoming import Incoming
from celerypipe.runner.logs.ordering import HELD, MOST, Ordering
from tests.servers import eventually

#: When the story begins, by Redis' clock.
START = 1_800_000_000.0


def piece(number: int, at: float, text: str = "", *, pid: int = 7, more: bool = False, thread: str = "t") -> LogPiece:
    return LogPiece(number, at, 30, pid, "stdout", "log", thread, "node", "message", more, text)


def entry(host: str, sent: float, received: float, *pieces: LogPiece) -> Any:
    """An entry of a stream, as the process of a worker sends it."""
    head = shipping(keys.USUAL, Process(host, 1, "ab"), None, -1)["head"]
    body = b"".join(len(each).to_bytes(2, "big") + each for each in map(packed, pieces))
    stamp = b"%d-0" % round(received * 1000)
    return stamp, [b"t", b"%.6f" % sent, b"h", head, b"l", body]


def test_clocks_that_differ_by_seconds_and_lines_that_come_late() -> None:
    """Two machines write in turn, every 10 ms; one clock is 3 s ahead, and its lines take 50 ms longer."""
    reader, ordering, shown = LogReader("run", None, whole=True), Ordering(), []
    late: list[tuple[float, Any]] = []
    for count in range(100):
        now = START + count * 0.01
        if count % 2:
            late.append(
                (now + 0.052, entry("ahead", now + 3.0, now + 0.002, piece(count // 2 + 1, now + 3.0, str(count))))
            )
        else:
            late.append((now + 0.002, entry("right", now, now + 0.002, piece(count // 2 + 1, now, str(count)))))
    for now, item in sorted(late, key=lambda each: each[0]):
        ordering.put(reader.read(item).lines, now)
        shown += ordering.ready(now)
    assert shown, "nothing waits for the end"
    shown += ordering.ready(START, all_of_them=True)
    assert [int(line.text) for line in shown] == list(range(100))
    assert all(abs(line.time - START - int(line.text) * 0.01) < 0.01 for line in shown)
    assert {line.host for line in shown} == {"ahead", "right"}


def test_a_line_is_held_for_a_moment_and_not_longer() -> None:
    ordering = Ordering()
    assert ordering.due_in(0.0) is None
    ordering.put([LogLine(time=2.0, text="late")], 10.0)
    ordering.put([LogLine(time=1.0, text="early")], 10.0 + HELD / 2)
    assert list(ordering.ready(10.0 + HELD / 2)) == []
    assert ordering.due_in(10.0) == pytest.approx(HELD)
    assert [line.text for line in ordering.ready(10.0 + HELD)] == ["early", "late"]
    ordering.put([LogLine(time=float(number), text="") for number in range(MOST + 5)], 20.0)
    assert [line.time for line in ordering.ready(20.0)] == [0.0, 1.0, 2.0, 3.0, 4.0], "it is bounded"


def test_what_is_missing_is_counted_and_long_lines_are_put_together() -> None:
    reader = LogReader("run", None, whole=True)
    first = reader.read(entry("box", 1.0, 1.0, piece(3, 1.0, "three"), piece(4, 1.0, "long ", more=True)))
    assert [(line.text, line.dropped) for line in first.lines] == [("three", 2)]
    then = reader.read(entry("box", 1.0, 1.0, piece(5, 1.0, "other", thread="u"), piece(6, 1.0, "line")))
    assert [(line.text, line.dropped) for line in then.lines] == [("other", 0), ("long line", 0)]
    again = reader.read(entry("box", 1.0, 1.0, piece(7, 1.0, "cut ", more=True), piece(9, 1.0, "short")))
    assert [(line.text, line.dropped) for line in again.lines] == [("cut ", 0), ("short", 1)]
    other = reader.read(entry("box", 1.0, 1.0, piece(1, 1.0, "another process", pid=8)))
    assert [line.dropped for line in other.lines] == [0]
    late = LogReader("run", None, whole=False)
    assert [line.dropped for line in late.read(entry("box", 1.0, 1.0, piece(3, 1.0, "three"))).lines] == [0]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda at, fields: (at, []),
        lambda at, fields: (at, [*fields[:1], b"soon", *fields[2:]]),
        lambda at, fields: (at, [*fields[:5], b"\xff" * 9]),
        lambda at, fields: (at, [*fields[:3], b"x", *fields[4:]]),
    ],
)
def test_what_nobody_of_ours_wrote_is_no_line(wrong: Any) -> None:
    found = LogReader("run", None, whole=True).read(wrong(*entry("box", 1.0, 1.0, piece(1, 1.0, "x"))))
    assert found.refused
    assert not found.lines
    keyring = Keyring([b"0123456789abcdef"])
    unsigned = LogReader("run", keyring, whole=True).read(entry("box", 1.0, 1.0, piece(1, 1.0, "x")))
    assert unsigned.refused


def test_who_shows_lines_slowly_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    shown: list[LogLine] = []
    goes_on = threading.Event()

    def show(line: LogLine) -> None:
        shown.append(line)
        goes_on.wait(30)

    incoming = Incoming("run", None, show, str)
    incoming.take([entry("box", 1.0, 1.0, *(piece(number, 1.0, str(number)) for number in range(1, 6)))])
    incoming.close()  # the first line is being shown
    assert len(shown) == 1
    goes_on.set()
    eventually(lambda: "4 lines are not shown" in caplog.text, "that the others are not")
    assert len(shown) == 1


def test_processes_that_are_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "REMEMBERED", 3)
    reader = LogReader("run", None, whole=True)
    for pid in range(1, 100):
        pieces = piece(1, 1.0, "here", pid=pid), piece(2, 1.0, "not to its ", pid=pid, more=True)
        reader.read(entry(f"box{pid}", 1.0, 1.0, *pieces))
        reader.read(entry("steady", 1.0, 1.0, piece(pid, 1.0)))
    kept = {name: len(value) for name, value in vars(reader).items() if isinstance(value, dict)}
    assert len(kept) == 3
    assert max(kept.values()) == 3
    assert len(vars(vars(reader)["_clocks"])["_ahead"]) == 3
    back = reader.read(entry("box1", 1.0, 1.0, piece(9, 1.0, "still there", pid=1))).lines
    assert [(line.text, line.dropped) for line in back] == [("still there", 0)]
    assert [line.dropped for line in reader.read(entry("steady", 1.0, 1.0, piece(101, 1.0))).lines] == [1]


def test_who_comes_while_the_end_waits_for_lines_breaks_off_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = Incoming("run", None, lambda line: None, str)
    newcomers = [2]

    class Meanwhile(Process):
        @classmethod
        def read(cls, text: str) -> Process:
            if newcomers:  # as the thread that reads replies may
                incoming.take([entry("box", 1.0, 1.0, piece(1, 1.0, pid=newcomers.pop()))])
            return Process.read(text)

    incoming.take([entry("box", 1.0, 1.0, piece(1, 1.0, pid=1))])
    incoming.told(f"{Process('box', 1, 'ab')}", 1)
    monkeypatch.setattr("celerypipe.runner.logs.incoming.Process", Meanwhile)
    incoming.close()
    assert not newcomers
