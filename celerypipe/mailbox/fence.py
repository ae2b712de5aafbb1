"""The fence around a stateful warped node: only the last activation that entered may publish, and save its state.

One hash for each such node: ``token``, the activation that entered last, or ``runner``; ``last``, the sequence number
of the last message that is in the snapshot; ``answered``, that of the last message whose result is published;
``published``, the last entry of which a result or a failure is; ``data`` or ``blob``, the snapshot; ``deaths``,
activations in a row that entered and did not leave; ``trouble``, why nobody can go on; ``rewind``, there when the
runner shall go back to the snapshot it has.

A result is published at once, while its message stays in the mailbox until a snapshot holds what it did. So a message
is either withdrawn or answered, never both, and what is in the mailbox makes the state of now out of the snapshot.

With keys a snapshot, or what refers to it, is signed for its node and for the message that it goes up to. So is the
word that there is none yet: else who removes one would make a node begin anew in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from celerypipe.errors import BadSignature
from celerypipe.mailbox.deaths import Death, said_in
from celerypipe.mailbox.liveness import DEAD
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.wire import FAILURE, LOST_BLOB, Answer, Entry
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, accepted
from celerypipe.redis.script import Script, together
from celerypipe.redis.signing import SIGNATURE, Signer

#: The number of the try of a message that its runner gave up: nothing is run, and what comes after it goes on.
GIVEN_UP = 0xFFFFFFFF
#: Who has the state before an activation entered.
RUNNER = "runner"
#: A snapshot on its way: the field it goes to, what stands there, and the commands that store its blob.
Snapshot = tuple[str, bytes, Sequence[Command]]
#: Entries that one script or one read takes.
PAGE = 500

# Enter with the bell in hand: from now on nobody else publishes or saves. Nil: the bell is another's, or there is no
# state, or nobody can go on with it. Before is who was here last; one that did not leave counts as dead. What is no
# number cannot be counted on: whoever reads it then sees that, and goes back.
ENTER = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then return false end
if redis.call('HEXISTS', KEYS[2], 'trouble') == 1 then return false end
local before = redis.call('HGET', KEYS[2], 'token')
redis.call('HSET', KEYS[2], 'token', ARGV[1])
if before ~= ARGV[1] then
  redis.pcall('HINCRBY', KEYS[2], 'deaths', 1)
elseif redis.call('HGET', KEYS[2], 'deaths') == '0' then
  redis.call('HSET', KEYS[2], 'deaths', 1)
end
return {before, unpack(redis.call('HMGET', KEYS[2], 'last', 'answered', 'deaths', 'data', 'blob'))}
""")

# Publish results in one reply, up to the first one whose message was withdrawn: what comes after that was made with a
# state that must not be. A result's message stays; that of a failure ('d') goes: it left nothing in the state. Who asks
# once more, since the answer was lost on its way, is told the same, and what was published is not published again.
# -1: another has entered. Nil: the run is over. Else how many replies are unread, and how many of these were published.
PUBLISH = Script("""
local token, before = unpack(redis.call('HMGET', KEYS[3], 'token', 'published'))
if token ~= ARGV[2] then return -1 end
local reply, gone, answered, count = {'n', ARGV[3], 'w', ARGV[2]}, {}, nil, 0
for i = 4, #ARGV, 4 do if ARGV[i] == before then count = i / 4 end end
for i = 4 * count + 4, #ARGV, 4 do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) == 0 then break end
  reply[#reply+1] = 'r'
  reply[#reply+1] = ARGV[i+3]
  if string.find(ARGV[i+2], 'd') then gone[#gone+1] = ARGV[i] end
  if string.find(ARGV[i+2], 'a') then answered = ARGV[i+1] end
  count = count + 1
end
if #reply > 4 then
  if not redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', unpack(reply)) then return false end
  redis.call('HSET', KEYS[3], 'published', ARGV[4 * count])
end
if answered then redis.call('HSET', KEYS[3], 'answered', answered) end
if #gone > 0 then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(gone))
  redis.call('XDEL', KEYS[1], unpack(gone))
end
return {redis.call('XLEN', KEYS[2]), count}
""")

# Save a snapshot and let go of the messages in it. 0: another has entered. Else the blob of the one before, or ''.
SAVE = Script("""
if redis.call('HGET', KEYS[2], 'token') ~= ARGV[2] then return 0 end
local old = redis.call('HGET', KEYS[2], 'blob')
redis.call('HDEL', KEYS[2], 'data', 'blob')
redis.call('HSET', KEYS[2], 'last', ARGV[3], ARGV[4], ARGV[5], 'deaths', 1)
for start = 6, #ARGV, 1000 do
  local stop = math.min(#ARGV, start + 999)
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, start, stop))
  redis.call('XDEL', KEYS[1], unpack(ARGV, start, stop))
end
return old or ''
""")

# Let go of entries that are in the mailbox twice. 0: another has entered.
DISCARD = Script("""
if redis.call('HGET', KEYS[2], 'token') ~= ARGV[2] then return 0 end
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 3))
redis.call('XDEL', KEYS[1], unpack(ARGV, 3))
return 1
""")

# Set a field, if nobody else has entered.
SET = Script("""
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return 1
""")

# Withdraw a message, unless its result is published. 1: withdrawn.
WITHDRAW = Script("""
if tonumber(redis.call('HGET', KEYS[2], 'answered') or '-1') >= tonumber(ARGV[3]) then return 0 end
if ARGV[2] ~= '' then
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
  redis.call('XDEL', KEYS[1], ARGV[2])
end
return 1
""")

# Go back to the runner's snapshot, with an empty mailbox; whoever has entered is out.
REWIND = Script("""
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
redis.call('HSET', KEYS[2], 'token', ARGV[2], 'last', ARGV[3], 'answered', ARGV[3], 'deaths', 0)
if ARGV[5] ~= '' then redis.call('HSET', KEYS[2], ARGV[5], ARGV[6]) end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
""")


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


class Entered(NamedTuple):
    """What an activation finds: who was here before, up to where the snapshot goes and up to where results were
    published, activations that died in a row (it itself is one), and the snapshot or its blob."""

    before: str
    last: int
    answered: int
    deaths: int
    data: bytes | None
    blob: str


class Seen(NamedTuple):
    """What the runner sees: as above, and what the activation has to say."""

    last: int
    token: str
    blob: str
    trouble: bytes | None
    rewind: bool


class Fate(NamedTuple):
    """How far the node is, how the process died that kept its state, and whether that still does."""

    seen: Seen | None
    death: Death | None
    keeps: bool


def end_of(entry: Entry) -> int:
    """Return the number of the last message that an entry is about: a word may be about several."""
    many = entry.attempt == GIVEN_UP and entry.data.isdigit()
    return max(entry.sequence, int(entry.data)) if many else entry.sequence


def unlike(sequence: int, text: str) -> str:
    """Say that a message failed which went through before: nobody can make the state again."""
    return (
        f"its state cannot be made again: message {sequence + 1} went through before and fails now ({text}); "
        "update() must do the same when it is run again"
    )


@dataclass(frozen=True, slots=True)
class Fence:
    """The state of one stateful warped node in one run. It holds no connection."""

    mailbox: Mailbox

    @property
    def key(self) -> str:
        return self.mailbox.names.state(self.mailbox.run, self.mailbox.node)

    # -- the worker's side ------------------------------------------------------------------------------------------

    def enter(self, client: Client, slot: int, owner: str) -> Entered | None:
        """Be the one who goes on with it; None: that is another, or the runner has not made it yet.

        :class:`BadSignature` if nobody of ours wrote the snapshot.
        """
        found = ENTER(client, (f"{self.mailbox.bell}{slot}", self.key), owner)
        if found is None:
            return None
        before, last, answered, deaths, *snapshot = found
        try:
            data, blob = self._opened(int(last), *snapshot)
            return Entered(before.decode(), int(last), int(answered), int(deaths), data, blob)
        except (ValueError, TypeError, AttributeError):
            raise BadSignature("nobody of ours wrote this state") from None

    def pending(self, client: Client, owner: str) -> list[Entry]:
        """Return all that was given to somebody and is not in a snapshot; it is this activation's now."""
        while self.mailbox.claim(client, owner, PAGE):
            pass
        found: list[Entry] = []
        start = "0"
        while True:
            read = ("XREADGROUP", "GROUP", keys.GROUP, owner, "COUNT", PAGE, "STREAMS", self.mailbox.stream, start)
            items = client.call(*read)[0][1]
            if not items:
                return found
            found += self.mailbox.admitted(client, owner, [item for item in items if item[1]])
            start = items[-1][0]

    def publishing(self, owner: str, answers: Sequence[Answer], *, ends: bool) -> Command:
        """Return the command that publishes results; ``ends``: nobody runs their messages again, so they go at once."""
        flat: list[Any] = []
        for answer, said in zip(answers, self.mailbox.said(owner, answers), strict=True):
            lost = answer.kind in (FAILURE, LOST_BLOB)
            flags = ("" if lost else "a") + ("d" if lost or ends else "")
            flat += (answer.entry.id, answer.entry.sequence, flags, said)
        names = (self.mailbox.stream, self.mailbox.reply, self.key)
        return PUBLISH.command(names, keys.GROUP, owner, self.mailbox.node, *flat)

    def save(self, client: Client, owner: str, last: int, snapshot: Snapshot, ids: Sequence[str]) -> str | None:
        """Save a snapshot; return the blob of the one before. None: another has entered.

        ``ids``: the entries of the messages in it.
        """
        field, value, storing_it = self._sealed(last, snapshot)
        saving = SAVE.command((self.mailbox.stream, self.key), keys.GROUP, owner, last, field, value, *ids)
        old = accepted(together(client, *storing_it, saving))[-1]
        return None if old == 0 else self._reference(old)

    def discard(self, client: Client, owner: str, ids: Sequence[str]) -> bool:
        """Let go of entries; False: another has entered."""
        return bool(DISCARD(client, (self.mailbox.stream, self.key), keys.GROUP, owner, *ids))

    def say(self, client: Client, owner: str, field: str, value: Any) -> bool:
        """Say something to the runner, or to who enters next; False: another has entered."""
        return bool(SET(client, (self.key,), owner, field, value))

    # -- the runner's side ------------------------------------------------------------------------------------------

    def look(self, client: Client) -> Seen | None:
        """See how far it is; None: there is no state."""
        return self.seen(client.call(*self.looking()))

    def looking(self) -> Command:
        """Return the command whose answer :meth:`seen` reads."""
        return ("HMGET", self.key, "last", "token", "blob", "trouble", "rewind")

    def seen(self, answer: Any) -> Seen | None:
        """Read how far it is; None: there is no state."""
        try:
            last, token, blob, trouble, rewind = answer
            return Seen(int(last), token.decode(), self._reference(blob or b""), trouble, rewind is not None)
        except (ValueError, TypeError, AttributeError):
            return None  # there is none, or nobody of ours wrote it

    def looking_closer(self) -> Command:
        """Return the command whose answer :meth:`fate` reads: nobody can go on for the process of a pinned node."""
        return _LOOK.command((self.key, f"{self.mailbox.bell}0"))

    def fate(self, answer: Any) -> Fate:
        """Read what became of the process that keeps the state of a pinned node."""
        seen, text, keeps = answer
        death = (said_in(text, Death) or Death(None)) if text else None
        return Fate(self.seen(seen), death, bool(keeps))

    def reading(self) -> Command:
        """Return the command whose answer :meth:`snapshot` reads."""
        return ("HMGET", self.key, "last", "data", "blob")

    def snapshot(self, answer: Any) -> tuple[int, bytes | None, str]:
        """Read the snapshot: up to where it goes, and its bytes or their blob; :class:`BadSignature` as above."""
        last, *snapshot = answer
        try:
            return int(last or -1), *self._opened(int(last or -1), *snapshot)
        except ValueError:
            raise BadSignature("nobody of ours wrote this state") from None

    def withdraw(self, client: Client, entry: bytes, sequence: int) -> bool:
        """Take a message back, so that nobody starts it; False: its result is published."""
        return bool(WITHDRAW(client, (self.mailbox.stream, self.key), keys.GROUP, entry, sequence))

    def rewind(self, client: Client, last: int, snapshot: Snapshot) -> None:
        """Go back to a snapshot, with an empty mailbox."""
        field, value, storing_it = self._sealed(last, snapshot)
        names = (self.mailbox.stream, self.key)
        rewinding = REWIND.command(names, keys.GROUP, RUNNER, last, keys.DATA_TTL, field, value)
        accepted(together(client, *storing_it, rewinding))

    # -- signatures -------------------------------------------------------------------------------------------------

    def _signer(self, last: int) -> Signer | None:
        signer = self.mailbox.signer("state")
        return signer and signer.within(str(last))

    def _sealed(self, last: int, snapshot: Snapshot) -> Snapshot:
        field, value, storing_it = snapshot
        signer = self._signer(last)
        return snapshot if signer is None else (field or "data", signer.sign(value), storing_it)

    def _opened(self, last: int, data: bytes | None, blob: bytes | None) -> tuple[bytes | None, str]:
        signer = self._signer(last)
        if signer is not None:
            if data is None and blob is None:
                raise BadSignature("somebody removed the snapshot")
            data, blob = (None if each is None else signer.unsign(each) or None for each in (data, blob))
        return data, (blob or b"").decode()

    def _reference(self, blob: bytes) -> str:
        """The reference in a field, whoever wrote that: for who only keeps it alive or removes it."""
        return (blob[:-SIGNATURE] if self.mailbox.keyring is not None else blob).decode(errors="replace")
