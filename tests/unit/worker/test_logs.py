"""The way out of a worker's process for what is logged there: whole lines, in their order, without secrets."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from celerypipe.heartbeat.frames import Frames
from celerypipe.mailbox.logs import LogPiece
from celerypipe.worker.logs import WHOLE, Interest, LogOutlet


class Outgoing:
    """An outlet, and all that comes out of it."""

    def __init__(self) -> None:
        self.outlet = LogOutlet()
        self._reads = self.outlet.open()
        self._frames = Frames()
        self.sizes: list[int] = []
        self.pieces: list[tuple[str, LogPiece]] = []

    def log(self, text: str, *, name: str = "node", thread: str = "main") -> None:
        record = logging.LogRecord(name, logging.WARNING, "", 0, text, None, None)
        record.threadName = thread
        self.outlet.write(record)

    def read(self) -> list[tuple[str, LogPiece]]:
        """What was sent: the run, and a piece."""
        os.set_blocking(self._reads, False)
        decoder = msgspec.msgpack.Decoder(LogPiece)
        try:
            while found := os.read(self._reads, 65_536):
                for run, line in self._frames.read(found):
                    self.sizes.append(3 + len(run) + len(line))
                    self.pieces.append((run.decode(), decoder.decode(line)))
        except BlockingIOError:
            pass
        return self.pieces

    def close(self) -> None:
        os.close(self._reads)
        os.close(self.outlet._fd)


@pytest.fixture
def outgoing() -> Iterator[Outgoing]:
    """One that is closed again."""
    level = logging.root.level
    made = Outgoing()
    yield made
    made.close()
    logging.root.setLevel(level)


def test_lines_of_several_threads_leave_in_the_order_of_their_numbers(outgoing: Outgoing) -> None:
    """Else their reader takes one that was overtaken for one that is missing."""
    logging.root.setLevel(logging.WARNING)
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(15):  # all of it finds room in the pipe, however late that is read
            outgoing.log("x" * 9_000, thread="the same name")  # of three pieces
            time.sleep(0)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    with outgoing.outlet.wanted(Interest("run", "node", logging.WARNING)):
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            outgoing.read()
            time.sleep(0.001)
    found = [piece for _, piece in outgoing.read()]
    numbers = [piece.number for piece in found]
    assert numbers == sorted(numbers)
    assert [piece.more for piece in found][:6] == [True, True, False] * 2, "the pieces of a line stand together"
    assert [piece.more for piece in found] == [True, True, False] * (len(found) // 3)


def test_no_piece_is_larger_than_what_the_kernel_writes_whole(outgoing: Outgoing) -> None:
    wide = "語" * 200
    logging.root.setLevel(logging.WARNING)
    with outgoing.outlet.wanted(Interest("run" * 8, wide, logging.WARNING)):
        outgoing.log("x" * 100_000, name=f"celerypipe.nodes.{wide}", thread=wide)
        outgoing.log("語" * 100_000, name=wide, thread=wide)
    assert len(outgoing.read()) > 40
    assert max(outgoing.sizes) <= WHOLE


def test_secrets_of_a_run_are_in_no_line_also_of_threads_that_belong_to_none(outgoing: Outgoing) -> None:
    logging.root.setLevel(logging.WARNING)
    key = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA7\n-----END KEY-----"
    with outgoing.outlet.wanted(Interest("run", "node", logging.WARNING, ("swordfish", key))):
        outgoing.log("the word is swordfish")
        for line in key.splitlines():
            outgoing.log(line)  # as a node prints it
    outgoing.log("a thread that lives on: swordfish")
    texts = [(run, piece.text) for run, piece in outgoing.read()]
    assert texts[0] == ("run", "the word is ***")
    assert texts[-1] == ("", "a thread that lives on: ***")
    assert not any("MIIE" in text for _, text in texts)


def test_the_level_of_the_worker_is_what_it_was_however_runs_come_and_go(
    outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.root.setLevel(logging.WARNING)
    set_level, wrong = logging.root.setLevel, []

    def slowly(level: int) -> None:
        time.sleep(0.0002)  # it waits for the lock of all loggers
        set_level(level)

    def work() -> None:
        for number in range(200):
            time.sleep(0.0001 * (number % 7))
            with outgoing.outlet.wanted(Interest("run", "node", logging.DEBUG)):
                time.sleep(0.0005)
                wrong.extend(["not heard"] * (logging.root.level != logging.DEBUG))

    monkeypatch.setattr(logging.root, "setLevel", slowly)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert logging.root.level == logging.WARNING
    assert outgoing.outlet.natural is None
