"""What all runs together counted, a hash for each queue in Redis: runners add to it, whoever shows metrics reads it.

Each run adds in numbered batches, and a number counts once: a batch whose answer was lost is sent again as it is.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, accepted
from celerypipe.redis.script import Script

logger = logging.getLogger(__name__)

#: What may become of a message; each gets one of these.
OUTCOMES = ("done", "cached", "failed", "skipped", "dead_letter", "cancelled", "dropped", "unmatched", "unfinished")
#: What the times of a message are called.
TIMES = ("wait", "run", "transfer")
#: The upper ends of the buckets that times are counted in, in seconds; what takes longer is in one more.
BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 600.0)
#: Stands for the pipelines and nodes that one hash has no room for.
OTHERS = "(others)"

# KEYS: the mark of the run, the set of queues, and the hash of each queue. ARGV: the number of the batch, how long the
# mark and the hashes live, how many fields a hash may have, and then the name of each queue, and for each amount: which
# hash, what is counted, of which pipeline and node, how much. What a full hash has no field for is counted as others'.
_COUNT = Script(f"""
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local now = redis.call('TIME')[1] * 1000
local queues = #KEYS - 2
for place = 5 + queues, #ARGV, 4 do
  local hash, whose = KEYS[2 + ARGV[place]], ARGV[place + 2]
  if redis.call('HLEN', hash) >= tonumber(ARGV[4]) and
      redis.call('HEXISTS', hash, ARGV[place + 1] .. whose) == 0 then
    whose = '["{OTHERS}","{OTHERS}"]'
  end
  redis.call('HINCRBY', hash, ARGV[place + 1] .. whose, ARGV[place + 3])
end
for queue = 1, queues do
  redis.call('PEXPIRE', KEYS[2 + queue], ARGV[3])
  redis.call('ZADD', KEYS[2], now, ARGV[4 + queue])
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
""")

#: What is counted of one node: an outcome, ``retried``, ``run 0.05`` (a bucket), ``run`` (microseconds in all).
Amounts = Mapping[str, int]


def counting(
    names: keys.Names, run: str, batch: int, pipeline: str, amounts: Mapping[tuple[str, str], Amounts], *, last: bool
) -> Command:
    """Return the command that adds what a run counted since its last batch; ``amounts`` by queue and node."""
    queues = sorted({queue for queue, _ in amounts})
    flat: list[str | int] = []
    for (queue, node), counted in amounts.items():
        whose = msgspec.json.encode([pipeline, node]).decode()
        for what, amount in counted.items():
            flat += (queues.index(queue) + 1, what, whose, amount)
    hashes = [names.counts(queue) for queue in queues]
    limits = batch, keys.RUN_TTL if last else keys.BATCH_TTL, keys.COUNTS_TTL, keys.COUNTS_MOST
    return _COUNT.command((names.batch(run), names.counted, *hashes), *limits, *queues, *flat)


def bucket(seconds: float) -> str:
    """Return the name of the bucket that counts so many seconds."""
    place = bisect_left(BOUNDS, seconds)
    return repr(BOUNDS[place]) if place < len(BOUNDS) else "+Inf"


@dataclass(slots=True)
class Counted:
    """What was counted of one node of the pipelines of one name, on one queue.

    ``spent`` has the seconds of all times together, by :data:`TIMES`, and ``buckets`` how many fell in each.
    """

    queue: str
    pipeline: str
    node: str
    outcomes: dict[str, int] = field(default_factory=dict)
    retried: int = 0
    spent: dict[str, float] = field(default_factory=dict)
    buckets: defaultdict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))


def read_counts(client: Client) -> tuple[list[str], list[Counted]]:
    """Return the queues that anything was counted for, and what that was, in two round trips."""
    queues = [name.decode(errors="replace") for name in client.call("ZRANGE", client.names.counted, 0, -1)]
    if not queues:
        return [], []
    hashes = accepted(client.together(*[("HGETALL", client.names.counts(queue)) for queue in queues]))
    found: dict[tuple[str, str, str], Counted] = {}
    for queue, said in zip(queues, hashes, strict=True):
        for name, amount in zip(said[::2], said[1::2], strict=True):
            what, bracket, rest = name.partition(b"[")
            try:
                pipeline, node = msgspec.json.decode(bracket + rest, type=tuple[str, str])
                whose = found.setdefault((queue, pipeline, node), Counted(queue, pipeline, node))
                _add(whose, what.decode(), int(amount))
            except ValueError as error:
                logger.debug("what no run of celerypipe counted: %s", error)
    return queues, list(found.values())


def _add(whose: Counted, what: str, amount: int) -> None:
    time, _, upper = what.partition(" ")
    if what in OUTCOMES:
        whose.outcomes[what] = amount
    elif what == "retried":
        whose.retried = amount
    elif time in TIMES and upper:
        whose.buckets[time][upper] = amount
    elif time in TIMES:
        whose.spent[time] = amount / 1e6
