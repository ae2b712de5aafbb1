"""Threads that hang in a node: the fourth at one time ends the run, and those that came back do not count."""

from __future__ import annotations

import threading

from celerypipe.errors import NodeTimeout
from celerypipe.runner.stations.abandoned import Abandoned
from celerypipe.runner.stations.course import Course


def test_who_came_back_hangs_no_more() -> None:
    course = Course("run", folder=None, say=print)
    abandoned = Abandoned(course, "read", "do something else")
    for _ in range(4):
        back = threading.Event()
        threads = [course.spawn("read", back.wait) for _ in range(3)]
        for thread in threads:
            abandoned.add(thread)
        back.set()
        for thread in threads:
            thread.join()
        assert course.error is None
    back.clear()
    for _ in range(4):
        abandoned.add(course.spawn("read", back.wait))
    back.set()
    assert isinstance(course.error, NodeTimeout)
    assert str(course.error) == "read: 4 of its threads hang, and nothing can end a thread; do something else"
