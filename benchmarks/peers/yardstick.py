"""The yardstick: 100 bytes over two Redis lists to another bare process and back, by redis-py, as in the spine's."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from celerypipe.redis.connection import connect

PAYLOAD = b"x" * 100
COUNT = 400

PONG = """
import sys
from celerypipe.redis.connection import connect
client = connect(sys.argv[1])
while True:
    item = client.blpop("bench:ping", 1)
    if item and item[1] == b"end":
        break
    if item:
        client.rpush("bench:pong", item[1])
"""


class PingPong:
    """A client here and one bare process over there."""

    def __init__(self, url: str) -> None:
        self.client = connect(url)
        self.other = subprocess.Popen(  # noqa: S603  # our own text above
            [sys.executable, "-c", PONG, url],
            start_new_session=True,  # Ctrl-C is for us, who end it
        )
        self.values: list[float] = []

    def measure(self) -> float:
        """Microseconds there and back, median; kept in ``values`` too."""
        times = []
        for _ in range(COUNT):
            start = time.perf_counter()
            self.client.rpush("bench:ping", PAYLOAD)
            if self.client.blpop("bench:pong", 5) is None:
                raise TimeoutError("the yardstick's other process does not answer")
            times.append(time.perf_counter() - start)
        self.values.append(statistics.median(times) * 1e6)
        return self.values[-1]

    def close(self) -> None:
        """End the other process."""
        try:
            self.client.rpush("bench:ping", b"end")
            self.other.wait(3)
        except Exception:  # noqa: BLE001  # whatever is wrong with Redis, the process must go
            self.other.kill()
            self.other.wait()
        self.client.close()
