"""Which processes live: what a heartbeat writes of them, and what the scripts and the others read out of that.

One key for each worker names its processes that run, for three seconds, and tells one presence of it from the next; it
is written each second by a process that
shares no interpreter lock with them (:mod:`celerypipe.heartbeat.monitor`), which also says when the worker is gone. A
runner's heartbeat renews the leases of its runs.

Who is not named may still live: Redis itself may have stood still, or been away. Then the living are heard again within
a second or two, so that only who is missed twice, with that long between, is dead. Who saw a process end says so at
once (:mod:`celerypipe.mailbox.deaths`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from celerypipe.heartbeat.heartbeat import Words
from celerypipe.mailbox.deaths import Death, saying_death
from celerypipe.mailbox.holder import Process
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command
from celerypipe.redis.script import Script

#: What stands in the place of the processes once the worker is gone.
OVER = "over"


# Name the processes that live, and answer whether the presence of the worker stands.
_BEAT = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('EXISTS', KEYS[2])
"""


def words(names: keys.Names, process: Process, last: Sequence[Command] = (), stands: str = "") -> Words:
    """Return what is said of a worker or a host, whose own process this is.

    ``last``: said when it is gone, besides that it is. ``stands``: the key that has what it says of itself, where that
    is no presence.

    One that ends in good order may leave messages that it could not hand back: that is the fault of none of them.
    """
    name = names.heartbeat(process.host, process.life)
    return Words(
        beat=[("EVAL", _BEAT, 2, name, stands or names.presence(str(process)), None, keys.HEARTBEAT_TTL)],
        full=[("PEXPIRE", name, keys.HEARTBEAT_TTL)],  # what may lie in a full Redis may live on there
        last=[("SET", name, OVER, "PX", keys.DEATH_TTL), *last],
        left=[saying_death(names, str(process), Death(os.EX_OK, told=True))],
    )


def words_of_run(names: keys.Names, run: str) -> Words:
    """Return what is said of a run while its runner lives: its lease goes on, and ends with it."""
    renewing = [("PEXPIRE", names.run(run), keys.RUN_TTL)]
    return Words(beat=renewing, full=renewing, last=[("DEL", names.run(run))])


# Is the process of an activation dead? Its name is <host>.<pid>.<token>-<life>-<random>.<slot>; the keys are made here
# and not by celerypipe.redis.keys, with the prefix that all keys of a namespace have. A name that no worker gave counts
# as living.
DEAD = f"""
local prefix = string.match(KEYS[1], '^[^:]*')
local function dead(owner)
  local host, pid, life = string.match(owner, '^(.*)%.(%d+)%.[^.]*%-(%x+)%-%x+%.%d+$')
  if not host then return false end
  local place = host .. '.' .. pid .. '.' .. life
  if redis.call('EXISTS', prefix .. ':death:' .. place) == 1 then return true end
  local named = redis.call('GET', prefix .. ':heartbeat:' .. host .. '.' .. life)
  if named == '{OVER}' then return true end
  if named and string.find(named, ' ' .. pid .. ' ', 1, true) then return false end
  local missed, most = prefix .. ':missed:' .. place, named and {keys.MISSED_TTL - keys.MISSED} or \
{keys.MISSED_TTL - keys.MISSED_IN_SILENCE}
  local left = redis.call('PTTL', missed)
  if left < 0 then redis.call('SET', missed, 1, 'PX', {keys.MISSED_TTL}) end
  if left < 0 or left > most then return false end
  redis.call('PEXPIRE', missed, most)
  return true
end
"""

_ASKED = Script(f"{DEAD}\nreturn dead(ARGV[1]) and 1 or 0")


def is_dead(client: Client, holder: str) -> bool:
    """Is the process of an activation dead? Who is not heard has to be asked for twice, see above."""
    return bool(_ASKED(client, (client.names.workers,), holder))


def is_named(process: Process, heartbeat: bytes | None) -> bool:
    """Does the heartbeat of its worker name this process?"""
    return heartbeat is not None and b" %d " % process.pid in heartbeat


def revision_in(heartbeat: bytes | None) -> str:
    """Return which presence of its worker is the last one; nothing where the heartbeat does not say."""
    return (heartbeat or b"").partition(b"=")[2].decode(errors="replace")
