"""Functions that the suite calls; its worker of queue ``calls`` imports them."""

from __future__ import annotations

import time
from typing import Any

from celerypipe import node

#: Seconds that :func:`busy` keeps a core busy.
WORK = 0.005


@node(queue="calls")
def busy(*values: Any) -> int:
    """Keep a core busy for a while, then say how many inputs there were."""
    over = time.perf_counter() + WORK
    while time.perf_counter() < over:
        pass
    return len(values)


@node(queue="calls")
def same(value: Any) -> Any:
    """Return what it gets."""
    return value
