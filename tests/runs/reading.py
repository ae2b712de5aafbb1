"""What comes out of a stream: read in the background, or to its end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from celerypipe import Message, Pipeline, Runner
from tests.servers import eventually


class Reading(threading.Thread):
    """Reads a stream to its end in the background."""

    def __init__(self, stream: Any) -> None:
        super().__init__(daemon=True)
        self.stream = stream
        self.out: list[Message] = []
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            for message in self.stream:
                self.out.append(message)
        except Exception as error:  # noqa: BLE001  # handed to the test, whatever it is
            self.error = error

    def wait_for(self, count: int) -> None:
        eventually(lambda: len(self.out) >= count or self.error, f"{count} messages")
        assert self.error is None, self.error

    def payloads(self) -> list[Any]:
        """Everything, once the stream has ended."""
        self.join(50)
        assert not self.is_alive(), f"still reading, {len(self.out)} messages here"
        if self.error is not None:
            raise self.error
        return [message.payload for message in self.out]


def payloads(stream: Any) -> list[Any]:
    """Those of all its messages, once the stream has ended."""
    return [message.payload for message in stream]


def results(runner: Runner, pipeline: Pipeline, given: Sequence[Any]) -> list[Any]:
    """What comes out for the payloads that are given."""
    return payloads(runner.stream(pipeline, [Message(payload) for payload in given]))
