"""Looks on while messages are counted as having killed their process: whoever is counted has to have been killed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Collection

import redis
from billiard.pool import EX_RECYCLE

from celerypipe.mailbox.holder import Process
from tests.servers.processes import alive


class Witness(threading.Thread):
    """Reads what is counted as often as it can; ``excused``: pids of those that were stopped, and live on."""

    def __init__(self, url: str, excused: Collection[int]) -> None:
        super().__init__(name="witness", daemon=True)
        self._url = url
        self._excused = excused
        self._over = threading.Event()
        self._seen: set[tuple[str, str]] = set()
        #: How those ended that were counted, each as often as it was.
        self.counted: Counter[str] = Counter()
        #: Those that live.
        self.false: list[str] = []

    def run(self) -> None:
        """Look until told to stop."""
        client = redis.Redis.from_url(self._url, socket_timeout=5.0)
        while not self._over.wait(0.2):
            try:
                for key in client.scan_iter("celerypipe:attempts:*", count=1_000):
                    for field, value in client.hgetall(key).items():
                        if field.startswith(b"deaths "):
                            self._look(f"{key.decode()} {field.decode()}", value)
            except (redis.RedisError, OSError):
                continue

    def _look(self, where: str, deaths: bytes) -> None:
        for place, death in json.loads(deaths):
            if (where, place) in self._seen:
                continue
            self._seen.add((where, place))
            self.counted[str(death["status"])] += 1
            pid = Process.read(place).pid
            if death["status"] == EX_RECYCLE or (alive(pid) and pid not in self._excused):
                self.false.append(f"{where}: process {pid} lives, or ended in good order, and counts as {death}")

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()
