"""What sources that listen for JSON objects have in common: a port, an inbox, and the same idea of an object."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from celerypipe.contract.contract import Source
from celerypipe.errors import ConfigError
from celerypipe.message.message import Message
from celerypipe.message.payload import Object
from celerypipe.nodes.parts.arguments import whole
from celerypipe.nodes.parts.inbox import Inbox


class Listener(Source):
    """A source with a port; ``argument`` is what its configuration calls that. Subclasses say how it is talked to."""

    def __init__(
        self, host: str, port: int | str, *, argument: str, limit: int | None, capacity: int, max_bytes: int
    ) -> None:
        self.host = host
        self.port = _wanted(argument, port)
        self.max_bytes = whole("max_bytes", max_bytes, at_least=1)
        self.inbox = Inbox(
            whole("capacity", capacity, at_least=1), None if limit is None else whole("limit", limit, at_least=1)
        )
        self._argument = argument
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def configure(self) -> None:
        """Take the port; :class:`ConfigError` when it is not to be had."""
        self._socket = _listen(self.host, self.port, argument=self._argument)
        self.port = self._socket.getsockname()[1]

    def begin(self, serve: Callable[[], None], url: str) -> None:
        """Let a thread answer on the port, until the server ends."""
        self._thread = threading.Thread(target=serve, name=f"{self.name or type(self).__name__}-port", daemon=True)
        self._thread.start()
        self.logger.info("listening on %s", url)

    def messages(self) -> Iterator[Message]:
        """Yield one message an object, as they come in."""
        for index, payload in enumerate(self.inbox):
            yield Message(payload, version=index)

    def stop(self) -> None:
        """Take no more; ``messages`` ends after what was taken."""
        self.inbox.close()

    def destroy(self) -> None:
        """Close the port and every connection."""
        self.inbox.close()
        self.end_server()
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._socket:
            self._socket.close()
            self._socket = None

    def end_server(self) -> None:
        """End what answers on the port, if it was started."""
        raise NotImplementedError


def _wanted(name: str, port: Any) -> int:
    """Return the port number, 0 for ``"auto"`` (any free one); ValueError says what to write instead."""
    if port == "auto":
        return 0
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError(f'{name}: {port!r} is no port; write a number from 1 to 65535, or "auto" for any free one')
    return port


def _listen(host: str, port: int, *, argument: str) -> socket.socket:
    """Return a socket that listens there; :class:`ConfigError` names ``argument`` when the port is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            f'stop what is using it, or write "{argument}": "auto" for any free port'
        ) from error


def object_in(raw: str | bytes) -> Object | str:
    """Return the JSON object in a text, or what is wrong with it."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return Object(value) if isinstance(value, dict) else f"a JSON object is wanted, not {type(value).__name__}"
