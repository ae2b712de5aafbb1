"""``python -m benchmarks.delay <port> <port of Redis> <seconds>``: a way to Redis that takes so long each way."""

from __future__ import annotations

import asyncio
import sys

HOST = "127.0.0.1"
_CHUNK = 1 << 18


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Write what is read, each piece so much later; pieces overtake no other, and wait for no other."""
    clock = asyncio.get_running_loop().time
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(max(0.0, due - clock()))
            if not piece:
                return
            writer.write(piece)
            await writer.drain()

    async def read() -> None:
        while True:
            piece = await reader.read(_CHUNK)
            pieces.put_nowait((clock() + seconds, piece))
            if not piece:
                return

    try:
        await asyncio.gather(read(), write())
    except ConnectionError:
        pass  # one end is gone; so is the other in a moment
    finally:
        writer.close()


async def serve(port: int, redis_port: int, seconds: float) -> None:
    """Take connections until the process is ended."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, redis_port)
        await asyncio.gather(_pass_on(reader, back, seconds), _pass_on(there, writer, seconds))

    server = await asyncio.start_server(take, HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
