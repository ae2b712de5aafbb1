"""``notifier_websocket``: a sink that sends each message to a WebSocket server."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import websockets

from celerypipe.contract.contract import Sink
from celerypipe.message.message import Message
from celerypipe.nodes.parts.arguments import number, whole
from celerypipe.nodes.parts.delivery import address, deliver, is_here

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

#: Seconds between two looks at the connection while a receipt is awaited.
LOOK = 0.05


class NotifierWebsocket(Sink):
    """Sends each message as a JSON text (``Message.to_json``, juturna's keys) over one connection that it keeps.

    A ping follows each message and its pong is the receipt: the message has reached the server's process, whatever the
    program there does with it next. Without a receipt the sink connects again and sends again, so a server that dies
    loses none that it had not received; one may arrive twice, with the same ``id``. When all tries failed:
    ConnectionError. What the server sends is read and dropped. The server should read until the sink closes. After
    juturna's node of the same mark, which connected anew for each message.

    ``endpoint``: URL of the server, ``ws://`` or ``wss://``
    ``timeout``: seconds for connecting, and for the receipt
    ``retries``: further tries after the first
    ``backoff``: seconds before the second try; doubled each time, with jitter
    """

    def __init__(
        self, endpoint: str = "ws://127.0.0.1:1237", timeout: float = 10.0, retries: int = 3, backoff: float = 0.2
    ) -> None:
        self.endpoint = address(endpoint, ("ws", "wss"))
        self.timeout = number("timeout", timeout, at_least=0.001)
        self.retries = whole("retries", retries)
        self.backoff = number("backoff", backoff)
        self._connection: ClientConnection | None = None
        self._open = contextlib.ExitStack()

    def update(self, message: Message) -> None:
        """Send the message and wait for its receipt; connects first where there is no connection."""
        text = message.to_json().encode("utf-8", "backslashreplace").decode()
        deliver(
            lambda: self._send(text),
            endpoint=self.endpoint,
            retries=self.retries,
            backoff=self.backoff,
            passing=(OSError, websockets.WebSocketException),
        )

    def destroy(self) -> None:
        """Close the connection."""
        self._connection = None
        self._open.close()

    def set_on_config(self, prop: str, value: Any) -> None:
        """Send to another ``endpoint`` from the next message on."""
        if prop == "endpoint":
            self.endpoint = address(value, ("ws", "wss"))
            self.destroy()

    def _send(self, text: str) -> None:
        try:
            connection = self._connection or self._connect()
            _drop_answers(connection)
            with _together(connection.socket):
                connection.send(text)
                receipt = connection.ping()
            self._await(connection, receipt)
        except (OSError, websockets.WebSocketException):
            self.destroy()
            raise

    def _connect(self) -> ClientConnection:
        logger = self.logger.getChild("connection")
        logger.setLevel(logging.INFO)  # at DEBUG it shows the request, with all that is secret in it
        self._connection = self._open.enter_context(
            import_module("websockets.sync.client").connect(  # which is long, and each worker has this module
                self.endpoint,
                open_timeout=self.timeout,
                close_timeout=1,
                proxy=None if is_here(self.endpoint) else True,
                logger=logger,
            )
        )
        return self._connection

    def _await(self, connection: ClientConnection, receipt: threading.Event) -> None:
        deadline = time.monotonic() + self.timeout
        while not receipt.wait(LOOK):
            try:
                _drop_answers(connection)
            except websockets.ConnectionClosed:
                if receipt.is_set():
                    return
                raise
            if time.monotonic() > deadline:
                raise TimeoutError(f"no receipt within {self.timeout:g} s")


def _drop_answers(connection: ClientConnection) -> None:
    """Drop what the server sent, for a connection whose messages nobody reads stops reading pongs too.

    Raises ConnectionClosed when the server has gone.
    """
    with contextlib.suppress(TimeoutError):
        while True:
            connection.recv(timeout=0)


@contextlib.contextmanager
def _together(sock: socket.socket) -> Iterator[None]:
    """Let what is written inside leave as one, where the system can do that.

    A server that closes as soon as it has a message would otherwise never see the ping behind it.
    """
    cork = getattr(socket, "TCP_CORK", None)
    if cork is None:
        yield
        return
    sock.setsockopt(socket.IPPROTO_TCP, cork, 1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # closed meanwhile
            sock.setsockopt(socket.IPPROTO_TCP, cork, 0)
