"""When a worker that died is started again: the decision alone, by :class:`RestartPolicy`."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from celerypipe.host.allowed import RestartPolicy


class Restarts:
    """The restarts of one worker. Times are those of one clock, in seconds."""

    def __init__(self, policy: RestartPolicy, chance: Callable[[], float] = random.random) -> None:
        self.policy = policy
        self._chance = chance
        self._restarted: deque[float] = deque()

    def after_death(self, now: float) -> float | None:
        """It just died: return when it may start again; None: it is given up."""
        policy, restarted = self.policy, self._restarted
        while restarted and restarted[0] <= now - policy.interval:
            restarted.popleft()
        if len(restarted) >= policy.attempts:
            if policy.mode == "fail" or not policy.attempts:
                return None
            at = restarted[0] + policy.interval
        else:
            wait = min(policy.delay * 2.0 ** len(restarted), policy.max_delay)
            at = now + wait * (1.0 + policy.jitter * self._chance())
        restarted.append(at)
        return at
