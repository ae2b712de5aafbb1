"""``json_lines``: a source that reads, and a sink that writes, one JSON value a line."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import stat
import threading
from collections.abc import Container, Iterator, Sized
from io import FileIO
from typing import Literal

from celerypipe.contract.contract import Sink, Source
from celerypipe.contract.positions import Position, Positions
from celerypipe.contract.readings import Readings
from celerypipe.errors import ConfigError
from celerypipe.folders import path_of
from celerypipe.message.message import Message, plain
from celerypipe.message.payload import Object
from celerypipe.nodes.parts.arguments import choice
from celerypipe.nodes.parts.written import Written

CHUNK_BYTES = 64 * 1024
#: Bytes of a file whose lines are counted one by one, in about 20 ms, and how many of them at a time.
COUNTED_BYTES, COUNTED_CHUNK = 16 * 1024 * 1024, 1024 * 1024


class JsonLinesSource(Source):
    """Reads a file of JSON lines (UTF-8) and sends one message a line; its ``version`` is the line's number.

    A JSON object becomes an Object, any other value is the payload as it is. Empty lines are skipped. A line that
    is not JSON is a ValueError that names file and line: ``on_error`` of the node decides, and with ``skip`` the others
    are sent. A run that reads a plain file can be resumed; until then the file may only grow.

    ``path``: the file; a relative one starts at the current folder; ``"-"`` reads standard input
    """

    def __init__(self, path: str) -> None:
        self.path = str(path_of(path))
        self._file: FileIO | None = None
        self._is_plain = False
        self._through: Container[Position] = Positions()
        self._stopped = threading.Event()
        self._waker: socket.socket | None = None
        self._sleeper: socket.socket | None = None

    def configure(self) -> None:
        """Open the file; :class:`ConfigError` when that cannot be done."""
        if self.path != "-":
            self.reach.require(self.path)
        # A byte sent from one to the other ends a wait for the next line.
        self._waker, self._sleeper = socket.socketpair()
        try:
            self._file = FileIO(0, closefd=False) if self.path == "-" else FileIO(self.path)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error.strerror}; correct 'path'") from error
        self._is_plain = self.path != "-" and stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)

    def position(self, message: Message) -> int | None:
        """Return the number of the line; None where the lines cannot be read again."""
        return message.version if self._is_plain else None

    def seek(self, through: Container[Position]) -> None:
        """Leave out these lines; :class:`ConfigError` when it is no plain file."""
        if not self._is_plain:
            raise ConfigError(f"{self.path}: cannot be read a second time, so the run cannot be resumed")
        self._through = through

    def total(self) -> int | None:
        """Return the number of lines that are not empty; of a large file by the length of the first ones.

        None where the lines cannot be read twice.
        """
        if not self._is_plain or self._file is None:
            return None
        lines = left_out = end = 0
        for number, line in enumerate(self._first_lines(self._file.fileno()), start=1):
            end += len(line) + 1
            if line.strip():
                lines += 1
                left_out += number in self._through
        size = os.fstat(self._file.fileno()).st_size
        if size <= COUNTED_BYTES or not lines:
            return lines - left_out
        through = len(self._through) if isinstance(self._through, Sized) else left_out
        return max(0, round(lines * size / end) - through)

    @staticmethod
    def _first_lines(descriptor: int) -> Iterator[bytes]:
        """Yield the lines of the first bytes, the last one perhaps in part; where the file is read stays as it is."""
        rest, position = b"", 0
        while position < COUNTED_BYTES and (chunk := os.pread(descriptor, COUNTED_CHUNK, position)):
            position += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        yield rest

    def messages(self) -> Iterator[Message]:
        """Yield one message a line."""
        return Readings(self._message, self._wanted())

    def _wanted(self) -> Iterator[tuple[bytes, int, int]]:
        """Lines that are not empty, each with its number, and how many came before it."""
        count = 0
        for line_number, line in enumerate(self._lines(), start=1):
            if self._stopped.is_set():
                return
            if line.strip():
                if line_number not in self._through:
                    yield line, line_number, count
                count += 1

    def stop(self) -> None:
        """End a wait for the next line."""
        self._stopped.set()
        if self._waker:
            with contextlib.suppress(OSError):  # closed by destroy: nobody waits any more
                self._waker.send(b"x")

    def destroy(self) -> None:
        """Close the file."""
        for held in (self._file, self._waker, self._sleeper):
            if held:
                held.close()
        self._file = None

    def _lines(self) -> Iterator[bytes]:
        """Yield whole lines. Read by hand, for a ``readline`` on a terminal or FIFO cannot be told to stop."""
        if self._file is None or self._sleeper is None:
            raise RuntimeError(f"{self.path}: not open; call configure() before messages()")
        with selectors.PollSelector() as selector:  # epoll refuses plain files
            selector.register(self._file, selectors.EVENT_READ)
            selector.register(self._sleeper, selectors.EVENT_READ)
            rest: list[bytes] = []
            while not self._stopped.is_set():
                selector.select()
                if self._stopped.is_set():
                    return
                chunk = self._file.read(CHUNK_BYTES)
                if not chunk:
                    yield b"".join(rest)
                    return
                *lines, tail = chunk.split(b"\n")
                if lines:
                    yield b"".join([*rest, lines[0]])
                    yield from lines[1:]
                    rest = []
                rest.append(tail)

    def _message(self, wanted: tuple[bytes, int, int]) -> Message:
        line, line_number, sequence = wanted
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            where = "<stdin>" if self.path == "-" else self.path
            raise ValueError(f"{where}:{line_number}: not JSON ({error}); correct or remove this line") from error
        payload = Object(value) if isinstance(value, dict) else value
        return Message(payload, version=line_number, sequence=sequence)


class JsonLinesSink(Sink):
    """Writes one line of JSON a message, in one system call: nothing written is lost with the process.

    ``kill -9`` in the very middle of that call can leave the last line half; all before it are whole.

    Arrays become nested lists, bytes base64. Where a run is resumed, each message is in the file exactly once.

    ``path``: the file; a relative one starts at the current folder; missing folders are made
    ``append``: keep what the file holds and write behind it; otherwise it is emptied first
    ``content``: ``"payload"`` (default) or ``"message"``, which adds id, origin, sequence, meta and timers
    """

    def __init__(self, path: str, append: bool = False, content: Literal["payload", "message"] = "payload") -> None:
        if str(path) == "-":
            raise ValueError('path: \'-\' is no file; to print JSON use the sink console with "format": "{json}"')
        self.path = path_of(path)
        self.append = append
        self.content = choice("content", content, ("payload", "message"))
        self._file: FileIO | None = None
        self._written: Written | None = None

    def warmup(self) -> None:
        """Open the file; :class:`ConfigError` when that cannot be done, or it is not as an earlier run left it."""
        self.reach.require(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            is_plain = self.path.is_file() or not self.path.exists()
            self._written = Written(self.record) if self.record is not None and is_plain else None
            if self._written is not None and self._written.begun:
                self._file = self._continued(self._written)
                return
            self._file = FileIO(self.path, "a+" if self.append else "w")
            self._end_half_line(self._file)
            if self._written is not None:
                self._written.add("", self._file.seek(0, os.SEEK_END))
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}; correct 'path'") from error

    def update(self, message: Message) -> None:
        """Write the line; OSError when the disk is full."""
        self.update_once(message, "")

    def update_once(self, message: Message, key: str) -> None:
        """Write the line, unless an earlier run wrote it; OSError when the disk is full."""
        if self._file is None:
            raise RuntimeError(f"{self.path}: not open; call warmup() before update()")
        if self._written is not None and key and key in self._written:
            return
        text = (
            message.to_json() if self.content == "message" else json.dumps(plain(message.payload), ensure_ascii=False)
        )
        # A lone surrogate has no UTF-8; backslashreplace writes it as \udc80, which is how JSON spells it.
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        if self._written is None:
            self._write(self._file, line)
            return
        self._written.add(key, len(line))
        try:
            self._write(self._file, line)
        except OSError:
            self._written.take_back()
            self._file.truncate(self._written.end)  # a part of it must not stand where the next line begins
            self._file.seek(self._written.end)
            raise

    def destroy(self) -> None:
        """Close the file."""
        for held in (self._file, self._written):
            if held:
                held.close()
        self._file = self._written = None

    def _write(self, file: FileIO, line: bytes) -> None:
        """Write all of it, unbuffered: one system call a line, unless the system takes only a part."""
        left = memoryview(line)
        while left:
            left = left[file.write(left) or 0 :]

    def _continued(self, written: Written) -> FileIO:
        """Open the file as an earlier run left it, and cut off the line that it was killed over."""
        file = FileIO(self.path, "r+")
        found, noted = file.seek(0, os.SEEK_END), written.end
        if not written.settle(found):
            file.close()
            raise ConfigError(
                f"{self.path}: has {found} bytes and the run left {noted}, so it was changed since; put it back as it "
                "was, or run without --resume"
            )
        file.truncate(written.end)
        file.seek(written.end)
        return file

    def _end_half_line(self, file: FileIO) -> None:
        """Start a new line if the file to append to lost the end of its last one."""
        if self.append and file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                self._write(file, b"\n")
