"""Which protocol is spoken: the number of what stands in Redis between runners and workers, and who understands whom.

Whoever changes entries, records, scripts or names of keys so that the other side would not understand it raises the
number. Three things never change, whatever the number, so that each version can tell any other one that it does not
understand it; ``protocol`` in them is the number that is spoken, and the oldest one that is understood:

* a presence (:mod:`celerypipe.mailbox.presence`) is JSON with ``id``, ``host``, ``pid``, ``queues`` and ``protocol``,
  and stands in the set of workers, and in that of each of its queues, with Redis' time in milliseconds, said anew every
  few seconds;
* the arguments of a task (:mod:`celerypipe.mailbox.bell`) begin with ``protocol``, the run and the node;
* a worker declines a task by an entry in the run's reply stream: one field ``declined``, its value JSON.
"""

from __future__ import annotations

from typing import NamedTuple

#: The number of today, and the oldest one that this version understands. What stands in Redis is held to them by
#: tests/unit/mailbox/test_protocol.py.
PROTOCOL = 1
OLDEST = 1


class Spoken(NamedTuple):
    """The number that somebody speaks, and the oldest one that it understands; zeros for who has none."""

    number: int = 0
    oldest: int = 0

    def understands(self, other: Spoken) -> bool:
        """Is there a number that both understand?"""
        return max(self.oldest, other.oldest) <= min(self.number, other.number)

    def __str__(self) -> str:
        """Its number, in a sentence."""
        return f"protocol {self.number}" if self.number else "a protocol without a number"


#: What this process speaks.
SPOKEN = Spoken(PROTOCOL, OLDEST)


def protocol_of(said: object) -> Spoken | None:
    """Return the protocol that somebody says; None if it is none."""
    match said:
        case [int(number), int(oldest)]:
            return Spoken(number, oldest)
    return None


def unlike(theirs: Spoken, host: str) -> str:
    """Say why a worker on that host and this side do not understand each other, and the cure; nothing if they do."""
    if SPOKEN.understands(theirs):
        return ""
    cure = f"update celerypipe on {host}, and restart the worker"
    if theirs.number > SPOKEN.number:
        cure = f"update celerypipe here, to the version that {host} has"
    return f"speaks {theirs}, and this machine {SPOKEN}: {cure}"
