"""What a workload is handed: a place, its yardsticks, and how many messages to send."""

from __future__ import annotations

from benchmarks.places import Place
from benchmarks.yardsticks import Yardsticks


class Stage:
    """A place and its yardsticks. ``quick``: a tenth of the messages, to see that everything works."""

    def __init__(self, place: Place, *, quick: bool = False) -> None:
        self.place = place
        self.url = place.url
        self.quick = quick
        self.yardsticks = Yardsticks(place)
        #: What celerypipe does not have yet; told, and no failure.
        self.not_yet: list[str] = []

    def close(self) -> None:
        """Let go of connections."""
        self.yardsticks.close()

    def count(self, usual: int, least: int = 20) -> int:
        """So many messages, or a tenth of them."""
        return max(least, usual // 10) if self.quick else max(least, usual)

    def bells(self, queue: str) -> int:
        """How many Celery tasks the workers of a queue have received, by their log."""
        return self.place.log(queue).read_text(errors="replace").count(" received\n")
