"""The far end of the tutorial: a WebSocket server that prints what arrives.

python examples/tutorial/server.py [--port 8081] [--count N] [--output FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import queue
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve


def main() -> None:
    """Listen until ``--count`` messages came, or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Print the messages that a pipeline sends over WebSocket.")
    parser.add_argument("--port", type=int, default=8081, help="TCP port on 127.0.0.1 (default 8081; 0: any free one)")
    parser.add_argument("--count", type=int, help="end after this many messages (default: at Ctrl-C)")
    parser.add_argument("--output", type=Path, help="also write the messages to this file, one line of JSON each")
    options = parser.parse_args()

    arrived: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            for text in connection:
                arrived.put(text if isinstance(text, str) else text.decode())

    with ExitStack() as held, suppress(KeyboardInterrupt):
        output = held.enter_context(options.output.open("w", encoding="utf-8")) if options.output else None
        server = held.enter_context(serve(listen, "127.0.0.1", options.port))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"listening on ws://127.0.0.1:{server.socket.getsockname()[1]}", flush=True)
        for number in itertools.count(1) if options.count is None else range(1, options.count + 1):
            text = arrived.get()
            message = json.loads(text)
            print(f"{number}: {json.dumps(message['payload'])}  meta {json.dumps(message['meta'])}", flush=True)
            if output:
                output.write(text + "\n")
                output.flush()


if __name__ == "__main__":
    main()
