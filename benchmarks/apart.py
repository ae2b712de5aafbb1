"""A runner in a process of its own: floods one warped no-op node and prints, a number a line, how many came back.

``python -m benchmarks.apart URL QUEUE COUNT EVERY SECONDS`` prints ``ready``, waits for a line, and then prints the
number after every ``EVERY`` messages and in the end. It sends ``COUNT`` messages, or for ``SECONDS`` if that is not 0:
the last number is then that of the messages that came back in that time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from benchmarks.traffic import in_a_row
from benchmarks.yardsticks import TINY
from celerypipe import Message, Runner


def main() -> None:
    """Wait for the word, flood, count."""
    url, queue = sys.argv[1:3]
    count, every = int(sys.argv[3]), int(sys.argv[4])
    seconds = float(sys.argv[5]) or float("inf")
    pipeline = in_a_row(queue)
    print("ready", flush=True)
    sys.stdin.readline()
    over = time.monotonic() + seconds

    def messages() -> Iterator[Message]:
        for _ in range(count):
            if time.monotonic() > over:
                return
            yield Message(TINY)

    got = 0
    for _ in Runner(url).stream(pipeline, messages()):
        got += time.monotonic() <= over
        if got % every == 0:
            print(got, flush=True)
    print(got, flush=True)


if __name__ == "__main__":
    main()
