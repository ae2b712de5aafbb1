"""Where a pipeline that is read from code ends."""

from __future__ import annotations

from collections import deque

from celerypipe.local import INBOX
from celerypipe.message import Message
from celerypipe.pipeline import NodeDefinition
from celerypipe.station import Course, Full, Waiting


class Outflow(Waiting):
    """Where a pipeline run by ``Runner.stream`` ends: messages wait here for the caller, who takes them at his pace."""

    def __init__(self, course: Course, node: NodeDefinition) -> None:
        super().__init__(course, node)
        self._waiting: deque[Message] = deque()

    def has_room(self, count: int) -> bool:
        return len(self._waiting) + count <= INBOX

    def offer(self, link: str, message: Message, *, full: Full = "wait") -> bool:
        with self._changed:
            if not self._wait_for_room(lambda: len(self._waiting) >= INBOX, full):
                return False
            self._waiting.append(message)
            self._changed.notify_all()
        return True

    def take(self) -> Message | None:
        """Wait for the next message; None when there will be none, or the run is over."""
        with self._changed:
            while not self._waiting:
                if self._ended or self.course.over.is_set():
                    self.finish()
                    return None
                self._changed.wait(0.1)
            self._changed.notify_all()
            return self._waiting.popleft()
