"""The thread that keeps a worker's presence alive through anything Redis does."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable

import redis

from celerypipe.mailbox.presence import Presence, remove_presence, write_presence
from celerypipe.redis import keys
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Client, Trouble, connect

logger = logging.getLogger("celerypipe.worker")


class PresenceKeeper:
    """A daemon thread that keeps one worker's presence alive through anything Redis does."""

    def __init__(
        self,
        address: Address,
        record: Callable[[], Presence],
        look: Callable[[Client | None], None],
        see_off: Callable[[], None],
    ) -> None:
        """``record`` is asked at every refresh; ``look`` is called after it, with None while Redis is away.

        ``see_off`` is called last, and may wait: the process ends meanwhile.
        """
        self.record = record
        self.look = look
        self.see_off = see_off
        self._client: Client | None = None
        self.address = address
        # A SimpleQueue may be written to inside a signal handler, an Event may not. None: end.
        self._told: queue.SimpleQueue[Callable[[Client], None] | None] = queue.SimpleQueue()
        self._unsaid: deque[Callable[[Client], None]] = deque()
        self._thread = threading.Thread(target=self._keep, name="celerypipe-presence", daemon=True)
        self._removed = threading.Event()
        self._away = False

    def start(self) -> None:
        """Write the presence now, and every ``PRESENCE_REFRESH`` seconds from now on."""
        self._thread.start()

    def end(self) -> None:
        """Remove the presence; callable inside a signal handler, waits for nothing."""
        self._told.put(None)

    def say(self, action: Callable[[Client], None]) -> None:
        """Have the thread do something in Redis, now or once that answers again; waits for nothing."""
        self._told.put(action)

    def join(self, timeout: float) -> None:
        """Wait until the presence is removed."""
        if self._thread.is_alive():
            self._removed.wait(timeout)

    def _keep(self) -> None:
        while True:
            there = self._try(lambda client: write_presence(client, self.record()))
            if not there or not self._try(self.look):
                self.look(None)
            goes_on = self._listen()
            while self._unsaid and self._try(self._unsaid[0]):
                self._unsaid.popleft()
            if goes_on:
                continue
            self._try(lambda client: remove_presence(client, self.record()["id"]))
            if self._client is not None:
                self._client.close()
            self._removed.set()
            self.see_off()
            return

    def _listen(self) -> bool:
        """Wait until the next refresh, or until there is something to say; False: it is to end."""
        try:
            action = self._told.get(timeout=keys.PRESENCE_REFRESH)
        except queue.Empty:
            return True
        if action is not None:
            self._unsaid.append(action)
        return action is not None

    def _try(self, action: Callable[[Client], None]) -> bool:
        """Do it; False when Redis is away, said once per outage."""
        try:
            if self._client is None:
                self._client = connect(self.address, name="celerypipe-presence", timeout=5.0)
            action(self._client)
        except (*Trouble, redis.RedisError) as error:
            if not self._away:
                logger.warning("presence: Redis does not answer (%s); trying every %d s", error, keys.PRESENCE_REFRESH)
            self._away = True
            return False
        if self._away:
            logger.info("presence: Redis answers again")
        self._away = False
        return True
