"""``json_websocket``: a source that listens for JSON objects over WebSocket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import weakref
from importlib import import_module
from typing import TYPE_CHECKING, Any

import websockets

from celerypipe.nodes.parts.inbox import Reception
from celerypipe.nodes.parts.listener import Listener, object_in

if TYPE_CHECKING:
    from websockets.sync.server import Server, ServerConnection


class JsonWebsocket(Listener):
    """Takes connections; each text or binary message that is a JSON object becomes one message with an Object.

    What is no JSON object is answered with ``{"error": …}``, logged and counted in ``refused``; the connection stays.
    While ``capacity`` objects wait for the pipeline, connections are not read: the senders have to wait. ``version`` of
    a message counts from 0. After juturna's node of the same mark.

    ``rtx_host``: address to listen on
    ``rtx_port``: TCP port, or ``"auto"`` for any free one; the attribute ``port`` tells which after ``configure``
    ``limit``: ends after this many messages; None: never
    ``capacity``: how many objects may wait for the pipeline
    ``max_bytes``: longest message in bytes; a longer one closes its connection (code 1009)
    ``origins``: web pages that may connect, such as ``["https://example.org"]``, or ``["*"]`` for any. By default none:
    any page in a browser on this machine could reach the port. Programs that are no browser always may
    """

    def __init__(
        self,
        rtx_host: str = "127.0.0.1",
        rtx_port: int | str = 1237,
        limit: int | None = None,
        capacity: int = 64,
        max_bytes: int = 1024 * 1024,
        origins: list[str] | None = None,
    ) -> None:
        super().__init__(rtx_host, rtx_port, argument="rtx_port", limit=limit, capacity=capacity, max_bytes=max_bytes)
        self.origins: list[str | None] = [None, *(origins or ())]
        self.refused = 0
        self._visitors: weakref.WeakSet[ServerConnection] = weakref.WeakSet()
        self._counting = threading.Lock()
        self._server: Server | None = None

    def warmup(self) -> None:
        """Start to take connections."""
        if self._socket is None:
            raise RuntimeError("json_websocket: no port yet; call configure() before warmup()")
        self._server = _server().serve(
            self._serve,
            sock=self._socket,
            origins=None if "*" in self.origins else self.origins,
            max_size=self.max_bytes,
            open_timeout=5,
            close_timeout=1,
            logger=self.logger,
            create_connection=self._greet,
        )
        self.begin(self._server.serve_forever, f"ws://{self.host}:{self.port}")

    def end_server(self) -> None:
        """Close every connection."""
        if self._server:
            # The server would wait for those that connected and then said nothing.
            for connection in list(self._visitors):
                if connection.state is websockets.State.CONNECTING:
                    with contextlib.suppress(OSError):  # gone already
                        connection.socket.shutdown(socket.SHUT_RDWR)
            self._server.shutdown()
            self._server = None

    def _greet(self, *arguments: Any, **options: Any) -> ServerConnection:
        connection: ServerConnection = _server().ServerConnection(*arguments, **options)
        self._visitors.add(connection)
        return connection

    def _serve(self, connection: ServerConnection) -> None:
        """Take the messages of one connection until either side ends it."""
        with contextlib.suppress(websockets.ConnectionClosed):
            for raw in connection:
                error = self._take(raw)
                if error is Reception.CLOSED:
                    connection.close(1001, "this source has ended")
                elif isinstance(error, str):
                    with self._counting:
                        self.refused += 1
                    self.logger.warning("a message from %s was refused: %s", connection.remote_address, error)
                    connection.send(json.dumps({"error": error}))

    def _take(self, raw: str | bytes) -> Reception | str:
        """Put the object into the inbox, waiting for room; or return what is wrong with it."""
        value = object_in(raw)
        return value if isinstance(value, str) else self.inbox.put(value, wait=True)


def _server() -> Any:
    """What serves; it is long to import, and each worker has this module."""
    return import_module("websockets.sync.server")
