"""A TCP proxy in front of a Redis on a unix socket, which cuts, throttles or swallows what passes it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from types import TracebackType

#: Bytes that are passed on at a time.
PIECE = 64 * 1024


class Proxy:
    """Listens on 127.0.0.1; ``url`` is what clients are given. All methods may be called from the test's thread."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.port = 0
        #: Bytes a second in each direction of each connection; 0: as fast as it goes.
        self.rate = 0
        #: The next piece that contains this is passed on so many seconds later.
        self.late: tuple[bytes, float] | None = None
        self._refusing = False
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
        self._call(lambda: self._swallowed.update(self._writers))

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
            there = await asyncio.open_unix_connection(str(self.target))
            await asyncio.gather(self._pass_on(reader, there[1]), self._pass_on(there[0], writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while piece := await reader.read(min(PIECE, self.rate // 20 or PIECE)):
                if self.late is not None and self.late[0] in piece:
                    (_, seconds), self.late = self.late, None
                    await asyncio.sleep(seconds)
                while writer in self._swallowed:
                    await asyncio.sleep(0.05)
                writer.write(piece)
                await writer.drain()
                if self.rate:
                    await asyncio.sleep(len(piece) / self.rate)
        finally:
            self._writers.discard(writer)
            self._swallowed.discard(writer)
            writer.close()
