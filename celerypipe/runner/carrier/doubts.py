"""What was refused for its signature: said, and a reason to look what of the run is missing now."""

from __future__ import annotations

from collections.abc import Container

from celerypipe.redis.signing import Keyring, refused
from celerypipe.runner.stations.course import Course


class Doubts:
    """The nodes of one run of which something was refused since they were last looked at."""

    def __init__(self, course: Course, keyring: Keyring | None, nodes: Container[str]) -> None:
        self._course = course
        self._keyring = keyring
        self._nodes = nodes
        self._doubted: set[str] = set()

    def __contains__(self, node: str) -> bool:
        return node in self._doubted

    def add(self, node: str, what: str, count: int = 1) -> None:
        """So many messages, results or what else of a node were refused: what they stand in the place of is missing."""
        where = f"run {self._course.run_id} node {node}" if node in self._nodes else f"run {self._course.run_id}"
        if self._keyring is not None and self._keyring.refusals.add(what, where, count):
            self._course.say(refused(what, where))
        self._doubted.add(node)

    def discard(self, node: str) -> None:
        """It is being looked at."""
        self._doubted.discard(node)
