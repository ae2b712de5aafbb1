"""What a supervisor sees of its workers in Redis, and says of them there; imported while they start."""

from __future__ import annotations

import contextlib
import socket

from celerypipe.mailbox import hints
from celerypipe.mailbox.deaths import Death, OutOfMemory, say_death
from celerypipe.mailbox.presence import read_presences
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Trouble, connect
from celerypipe.settings import RedisSettings


class Witness:
    """A Redis that is away hears nothing: what is said to it is for runs that wait for it, too."""

    def __init__(self, url: str) -> None:
        address = RedisSettings.find(url).or_default
        self._client: Client = connect(address, name="celerypipe-supervisor", timeout=2.0)
        self._out_of_memory = OutOfMemory()

    def present(self) -> dict[int, str]:
        """Return the workers of this machine, by their processes, as deaths name them."""
        with contextlib.suppress(*Trouble):
            here = socket.gethostname()
            return {each["pid"]: each["id"] for each in read_presences(self._client) if each["host"] == here}
        return {}

    def say_that_one_comes(self, queue: str, place: str) -> None:
        """In the place of a worker. Else a run would miss it, and ``on_no_worker`` would decide."""
        with contextlib.suppress(*Trouble):
            hints.say_freeing(self._client, [queue], place, keys.SPAWNING_TTL)

    def say_how_it_died(self, queue: str, place: str, status: int) -> None:
        """Say what a worker that was killed could not say itself; that it is gone is told by its heartbeat."""
        death = Death(status, queue, self._out_of_memory.happened())
        with contextlib.suppress(*Trouble):
            say_death(self._client, place, death)

    def close(self) -> None:
        """Hang up."""
        self._client.close()
