"""Where a pipeline that is read from code ends."""

from __future__ import annotations

from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.message.message import Message
from celerypipe.runner.stations.backlog import BYTES, MESSAGES, Backlog
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.station import Full, Station

#: Messages that the caller gets at a time; those still in his hand count as waiting.
HANDFUL = 16


class Outflow(Station):
    """Where a pipeline run by ``Runner.stream`` ends: messages wait here for the caller, who takes them at his pace."""

    def __init__(self, course: Course, node: NodeDefinition) -> None:
        super().__init__(course, node)
        self._waiting: Backlog[Message] = Backlog()
        self._in_hand = 0
        self._taken: list[Message] = []

    def has_room(self, count: int) -> bool:
        return len(self._waiting) + self._in_hand + count <= MESSAGES and self._waiting.bytes < BYTES

    def offer(self, link: str, message: Message, *, full: Full = "wait") -> bool:
        with self.changed:
            if not self.wait_for_room(lambda: not self.has_room(1), full):
                return False
            self._waiting.add(message, message)
            self.changed.notify_all()
        return True

    def take(self) -> list[Message]:
        """Wait for messages and return a handful of them; nothing when there will be none, or the run is over."""
        for message in self._taken:
            self.course.left(message)
        with self.changed:
            self._in_hand, self._taken = 0, []
            while not self._waiting:
                if self.ended or self.course.over.is_set():
                    self.finish()
                    return []
                self.changed.wait(0.1)
            taken = [self._waiting.take() for _ in range(min(HANDFUL, len(self._waiting)))]
            self._in_hand, self._taken = len(taken) - 1, taken
            self.changed.notify_all()
            return taken
