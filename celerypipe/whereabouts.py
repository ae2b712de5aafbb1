"""Where a late message is: waiting in its mailbox, behind another one, or running - and taking it back."""

from __future__ import annotations

import time
from typing import Any

import redis

from celerypipe import keys
from celerypipe.bells import Bells
from celerypipe.connection import Trouble, connect
from celerypipe.mailbox import Mailbox
from celerypipe.warp import Flight, Warp

#: Seconds this may take: it is asked by the thread that watches time.
PATIENCE = 0.5


class Whereabouts:
    """Answers for one run, over a connection of its own that never waits long."""

    def __init__(self, url: str, bells: Bells) -> None:
        self._client = connect(url, name="celerypipe-clock", timeout=PATIENCE)
        self._bells = bells

    def withdraw(self, mailbox: Mailbox, warp: Warp, flight: Flight) -> str:
        """Take a message back and say where its time went."""
        spent = time.monotonic() - (flight.due_since or flight.sent_at)
        try:
            text = self._where(mailbox, warp, flight, spent)
            if flight.entry:
                mailbox.withdraw(self._client, [flight.entry])
        except (*Trouble, redis.ResponseError) as error:
            self._client.close()
            return f"{spent:.1f} s waiting; Redis does not answer: {error}"
        return text

    def _where(self, mailbox: Mailbox, warp: Warp, flight: Flight, spent: float) -> str:
        if not self._bells.slots(warp.queue):
            command = f"celery -A celerypipe worker -Q {warp.queue}"
            return f"{spent:.1f} s waiting: no live worker serves queue {warp.queue!r}; start one: {command}"
        pending = self._pending(mailbox, flight.entry)
        ahead = sum(1 for other in list(warp.flights) if other < flight.sequence)
        if pending is None:
            tasks: Any = self._client.llen(warp.queue)
            behind = f" behind {ahead} messages" if ahead else (f" behind {tasks} tasks" if tasks else "")
            return f"{spent:.1f} s waiting{behind} on {warp.queue!r}"
        consumer, seconds = pending
        first: Any = self._client.xpending_range(
            mailbox.stream, keys.GROUP, min="-", max="+", count=1, consumername=consumer
        )
        host = consumer.rsplit(".", 3)[0]
        if first and first[0]["message_id"] != flight.entry:
            return f"{spent:.1f} s waiting behind another message on {host}"
        ran = min(seconds, spent)
        return f"{spent - ran:.1f} s waiting on {warp.queue!r}, {ran:.1f} s running on {host}"

    def _pending(self, mailbox: Mailbox, entry: bytes) -> tuple[str, float] | None:
        """Who was given the message, and how many seconds ago."""
        if not entry:
            return None
        found: Any = self._client.xpending_range(mailbox.stream, keys.GROUP, min=entry, max=entry, count=1)
        if not found:
            return None
        return found[0]["consumer"].decode(), found[0]["time_since_delivered"] / 1000

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()
