"""What was counted, as tests ask for it."""

from __future__ import annotations

from collections import Counter

from celerypipe.mailbox.counts import Counted, read_counts
from celerypipe.redis.connection import connect


def counted(url: str, queue: str) -> list[Counted]:
    """What was counted on a queue, node by node."""
    with connect(url) as client:
        return [each for each in read_counts(client)[1] if each.queue == queue]


def outcomes(url: str, queue: str, node: str = "there") -> Counter[str]:
    """How many messages to a node ended how."""
    return Counter(
        {what: count for each in counted(url, queue) if each.node == node for what, count in each.outcomes.items()}
    )
