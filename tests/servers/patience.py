"""How long tests wait for what they started."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

#: Long enough for a loaded machine; a test that waits this long has failed.
PATIENCE = 40.0

T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str = "it", timeout: float = PATIENCE) -> T:
    """Wait until the condition returns something true, and return that."""
    deadline, pause = time.monotonic() + timeout, 0.005
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout:.0f} s"
        time.sleep(pause)
        pause = min(1.2 * pause, 0.1)  # several tests at a time wait for something: looking costs the others time
    return value
