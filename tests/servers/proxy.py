"""A TCP proxy in front of a Redis on a unix socket, which cuts, throttles or swallows what passes it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pytest

#: Bytes that are passed on at a time.
PIECE = 64 * 1024
#: Linux: nothing that comes is handed to this socket but what a program of the kernel's packet filter lets through.
SO_ATTACH_FILTER = 26


def close(writer: asyncio.StreamWriter) -> None:
    """As a proxy does: the other side is told."""
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """As a machine that knows nothing of this line any more."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def forget(writer: asyncio.StreamWriter) -> None:
    """As a router or firewall: what comes is dropped before the kernel sees it, so that not even that answers."""
    nothing = ctypes.create_string_buffer(
        struct.pack("HBBI", 0x06, 0, 0, 0)
    )  # its one instruction: let 0 bytes through
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(nothing))
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


#: What can happen to a line that nobody uses.
Ending = Callable[[asyncio.StreamWriter], None]


class Proxy:
    """Listens on 127.0.0.1; ``url`` is what clients are given. All methods may be called from the test's thread.

    ``idle``: seconds after which a line that nobody uses has this ``ending``; 0: it lives for ever.
    """

    def __init__(self, target: Path, *, idle: float = 0.0, ending: Ending = close) -> None:
        self.target = target
        self.idle = idle
        self.ending = ending
        #: Lines that had it.
        self.ended = 0
        self.port = 0
        #: Bytes a second in each direction of each connection; 0: as fast as it goes.
        self.rate = 0
        #: Seconds that everything takes from one end to the other.
        self.distance = 0.0
        #: The next piece that contains this is passed on so many seconds later.
        self.late: tuple[bytes, float] | None = None
        self._refusing = False
        #: The client's end of each line, and when something passed it last.
        self._lines: dict[asyncio.StreamWriter, float] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._swallowed: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._loop.stop)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self, *, refusing: bool) -> None:
        """Break all connections now; ``refusing``: and every new one, until :meth:`mend`."""
        self._refusing = refusing
        self._call(self._break)

    def mend(self) -> None:
        """Let everything pass again, at full speed."""
        self._refusing = False
        self.rate = 0

    def swallow(self) -> None:
        """From now on nothing passes the present connections in either direction, and nobody is told."""

        async def swallow() -> None:
            self._swallowed.update(self._writers)

        asyncio.run_coroutine_threadsafe(swallow(), self._loop).result(10)

    def end(self, ending: Ending) -> None:
        """Let all present lines end so, now."""

        async def end() -> None:
            for line in list(self._lines):
                ending(line)

        try:
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        except PermissionError:
            pytest.skip("this system lets nobody but root drop what comes on a socket")

    def _call(self, action: object) -> None:
        self._loop.call_soon_threadsafe(action)  # type: ignore[arg-type]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._break()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    def _break(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if self._refusing:
                writer.transport.abort()
                return
            try:
                there = await asyncio.open_unix_connection(str(self.target))
            except OSError:
                writer.transport.abort()
                return
            ways = self._pass_on(reader, there[1], writer), self._pass_on(there[0], writer, writer)
            await asyncio.gather(*ways, self._watch(writer))

    async def _watch(self, line: asyncio.StreamWriter) -> None:
        """End a line that nobody uses."""
        self._lines[line] = self._loop.time()
        while self.idle and line in self._lines:
            if (left := self._lines[line] + self.idle - self._loop.time()) > 0:
                await asyncio.sleep(left)
            else:
                self.ended += 1
                self.ending(line)
                return

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: asyncio.StreamWriter
    ) -> None:
        self._writers.add(writer)
        try:
            while piece := await reader.read(min(PIECE, self.rate // 20 or PIECE)):
                if self.late is not None and self.late[0] in piece:
                    (_, seconds), self.late = self.late, None
                    await asyncio.sleep(seconds)
                while writer in self._swallowed:
                    await asyncio.sleep(0.05)
                self._lines[line] = self._loop.time()
                if self.distance:  # the next piece is on its way meanwhile
                    self._loop.call_later(self.distance, writer.write, piece)
                    continue
                writer.write(piece)
                await writer.drain()
                if self.rate:
                    await asyncio.sleep(len(piece) / self.rate)
            await asyncio.sleep(self.distance)
        finally:
            self._writers.discard(writer)
            self._swallowed.discard(writer)
            self._lines.pop(line, None)
            writer.close()
