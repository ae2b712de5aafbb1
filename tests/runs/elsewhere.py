"""A process of its own that asks a cache: ``python -m tests.runs.elsewhere URL WHAT COUNT``.

It asks the same thing COUNT times at once, counts in Redis how often it was told to compute it, and computes it only
when the test lets it (the key ``go``). It prints what it was given, then ends.
"""

from __future__ import annotations

import sys

from celerypipe.cache.question import Claim
from celerypipe.message.message import Message
from celerypipe.redis.connection import connect
from tests.runs.asking import PARENT, asked, asking
from tests.servers import eventually


def main(url: str, what: str, count: str) -> None:
    """Ask, compute what has to be computed, and print what came of it."""
    with asking(url) as ask, connect(url) as client:
        waiting = [ask.start(asked(what)) for _ in range(int(count))]
        client.incr(f"{what}:asked", len(waiting))
        for each in waiting:
            answer = each.answer()
            if isinstance(answer, Claim):
                client.incr(f"{what}:computed")
                eventually(lambda: client.exists(f"{what}:go"), "the word of the test")
                answer.keep([Message(f"{what} computed")], PARENT, seconds=1.0)
            else:
                print(answer.outputs(PARENT)[0].payload, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
