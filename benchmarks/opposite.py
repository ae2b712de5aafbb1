"""The other end of a yardstick: a bare process with redis-py and nothing else.

``python -m benchmarks.opposite PART URL``, where PART is ``pong``, ``streams`` or ``fetch``. It ends with its parent.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import redis

from celerypipe.redis.connection import Client, connect

#: Entries in one pipeline and in one read of the streams yardstick.
TOGETHER = 100


def pong(client: Client) -> None:
    """Send each item of one list back by another."""
    while True:
        item: Any = client.blpop(["bench:ping"], 5)
        if item:
            client.rpush("bench:pong", item[1])


def fetch(client: Client) -> None:
    """GET the key that is named, and report the seconds of the GET alone."""
    while True:
        item: Any = client.blpop(["bench:fetch"], 5)
        if item:
            start = time.perf_counter()
            data: Any = client.get(item[1])
            spent = time.perf_counter() - start
            client.rpush("bench:fetched", f"{spent} {len(data)}")


def streams(client: Client) -> None:
    """Answer each entry of one stream with an entry of another, a hundred at a time."""
    try:
        client.xgroup_create("bench:there", "bench", id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
    while True:
        answer: Any = client.xreadgroup("bench", "one", {"bench:there": ">"}, count=TOGETHER, block=5000)
        if not answer:
            continue
        entries = answer[0][1]
        names = [name for name, _ in entries]
        together = client.pipeline(transaction=False)
        together.xack("bench:there", "bench", *names)
        together.xdel("bench:there", *names)
        for _, fields in entries:
            together.xadd("bench:back", fields)
        together.execute()


def main() -> None:
    """Play the part until the parent ends."""
    part, url = sys.argv[1:]
    {"pong": pong, "fetch": fetch, "streams": streams}[part](connect(url, name=f"benchmarks-{part}"))


if __name__ == "__main__":
    main()
