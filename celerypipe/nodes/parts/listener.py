"""What sources that listen for JSON objects have in common: a port, an inbox, and the same idea of an object."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

from celerypipe.contract.contract import Source
from celerypipe.message.message import Message
from celerypipe.message.payload import Object
from celerypipe.nodes.parts.arguments import whole
from celerypipe.nodes.parts.inbox import Inbox
from celerypipe.nodes.parts.port import listen, wanted


class Listener(Source):
    """A source with a port; ``argument`` is what its configuration calls that. Subclasses say how it is talked to."""

    def __init__(
        self, host: str, port: int | str, *, argument: str, limit: int | None, capacity: int, max_bytes: int
    ) -> None:
        self.host = host
        self.port = wanted(argument, port)
        self.max_bytes = whole("max_bytes", max_bytes, at_least=1)
        self.inbox = Inbox(
            whole("capacity", capacity, at_least=1), None if limit is None else whole("limit", limit, at_least=1)
        )
        self._argument = argument
        self._socket: socket.socket | None = None

    def configure(self) -> None:
        """Take the port; :class:`ConfigError` when it is not to be had."""
        self._socket = listen(self.host, self.port, argument=self._argument)
        self.port = self._socket.getsockname()[1]

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
        if self._socket:
            self._socket.close()
            self._socket = None

    def end_server(self) -> None:
        """End what answers on the port, if it was started."""
        raise NotImplementedError


def object_in(raw: str | bytes) -> Object | str:
    """Return the JSON object in a text, or what is wrong with it."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return Object(value) if isinstance(value, dict) else f"a JSON object is wanted, not {type(value).__name__}"
