"""How many workers of a queue a host wants, by what waits for them: to zero and back.

More come as soon as the oldest message has waited for too long, or there is no worker and something to do. There are
never fewer than it takes for what is in hand, and fewer than now only once that was enough for a while: counted from
the last message that was finished, not from the last that came. Who goes finishes what it has in hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from celerypipe.host.allowed import Autoscale
from celerypipe.mailbox.status import Status


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What there is to do on a queue: messages that wait, those in hand, and the age of the oldest, in seconds.

    ``slots``: messages that all its workers take at a time; ``elsewhere``: those of workers of other hosts.
    """

    waiting: int = 0
    in_hand: int = 0
    oldest: float = 0.0
    slots: int = 0
    elsewhere: int = 0


def load_of(status: Status, queue: str, host: str) -> QueueLoad:
    """Return what there is to do on a queue; ``host``: the machine name of this host."""
    boxes = [each for each in status.mailboxes if each.queue == queue]
    serving = [each for each in status.workers if queue in each.queues]
    waiting = sum(each.waiting for each in boxes)
    return QueueLoad(
        waiting=waiting,
        in_hand=sum(each.out for each in boxes) - waiting,
        oldest=max([each.oldest or 0.0 for each in boxes], default=0.0),
        slots=sum(each.slots for each in serving),
        elsewhere=sum(each.slots for each in serving if each.host != host),
    )


class Scaler:
    """Decides for one queue. Times are those of one clock, in seconds."""

    def __init__(self, rule: Autoscale) -> None:
        self.rule = rule
        self.count = rule.min
        #: When as many as there are had something to do last.
        self._needed_at = -math.inf

    def want(self, load: QueueLoad, slots: int, now: float) -> int:
        """Return how many workers there should be from now on; ``slots``: messages that one takes at a time."""
        rule, work = self.rule, load.waiting + load.in_hand
        full = math.ceil(max(0, work - load.elsewhere) / max(1, slots))  # with so many nothing waits
        needed = min(max(full, rule.min), rule.max)
        if needed >= self.count:
            self._needed_at = now
        if needed > self.count and (load.oldest > rule.target_wait or not self.count):
            # From none on one is enough, until that has been there for a while.
            self.count = needed if self.count else max(1, rule.min)
        elif needed < self.count and now - self._needed_at > rule.cooldown:
            self.count, self._needed_at = needed, now
        return self.count
