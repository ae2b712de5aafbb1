"""What becomes of the process that keeps the state of a pinned node: the runner asks, and nobody can go on for it."""

from __future__ import annotations

from typing import Any, NamedTuple

from celerypipe.mailbox.deaths import Death, said_in
from celerypipe.mailbox.fence import RUNNER, Fence, Seen
from celerypipe.mailbox.liveness import DEAD
from celerypipe.redis.connection import Command
from celerypipe.redis.script import Script

# How far it is; word of the end of the process that entered last; and 1 if that lives and has its bell.
_LOOK = Script(f"""{DEAD}
local seen = redis.call('HMGET', KEYS[1], 'last', 'token', 'blob', 'trouble', 'rewind')
local token = seen[2]
if not token or token == '{RUNNER}' then return {{seen, false, 1}} end
local host, pid, life = string.match(token, '^(.*)%.(%d+)%.[^.]*%-(%x+)%-%x+%.%d+$')
local death = host and redis.call('GET', prefix .. ':death:' .. host .. '.' .. pid .. '.' .. life)
local keeps = not death and redis.call('GET', KEYS[2]) == token and not dead(token)
return {{seen, death or false, keeps and 1 or 0}}
""")


class Fate(NamedTuple):
    """How far the node is, how the process died that kept its state, and whether that still does."""

    seen: Seen | None
    death: Death | None
    keeps: bool


def looking(fence: Fence) -> Command:
    """Return the command whose answer :func:`fate` reads."""
    return _LOOK.command((fence.key, f"{fence.mailbox.bell}0"))


def fate(fence: Fence, answer: Any) -> Fate:
    """Read what became of it."""
    seen, text, keeps = answer
    death = (said_in(text, Death) or Death(None)) if text else None
    return Fate(fence.seen(seen), death, bool(keeps))
