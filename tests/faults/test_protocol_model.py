"""A model check of bell, mailbox and claim: Hypothesis interleaves what runner, Celery and activations do.

Each step is one atomic step of the protocol against a real Redis, or one thing that breaks: an activation dies or
is stopped, its process is interrupted or told to end and replaced, its bell is lost although it lives, the heartbeat
is not heard for a while, a task is lost or comes twice, a line dies with the answer of a command on it, Redis is
emptied. After every step: no message waits with nobody coming, none is answered twice, nothing is taken from those who
live and hold their bell, and a message counts as one that may have killed its process only if that died, and of no
order. At the end the faults stop; then, whatever state was reached, every message has its one answer within a few of
the runner's rounds.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from celerypipe.mailbox import holder as names
from celerypipe.mailbox.deaths import Death, death_of, say_death
from celerypipe.mailbox.mailbox import SEEN, Mailbox, dropping, waiting
from celerypipe.mailbox.wire import FAILURE, RESULT, UNBEGUN, Answer, Entry, as_published, packed_entry
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.script import call
from tests.servers.extent import LONG

SLOTS = 3
#: Rounds of the runner within which all is answered once nothing breaks any more.
ROUNDS = 6
#: What can happen, by who does it.
STEPS = {
    "runner": ["append", "append", "append_unheard", "look_around", "read_replies"],
    "celery": ["start", "start", "start_again", "deliver_twice", "lose_a_task"],
    "idle": ["read", "read", "release", "claim", "claim", "refresh", "hand_back", "exchange_unheard"],
    "gone": ["give_up", "retire", "retire", "die", "die", "stop"],
    "busy": ["answer", "answer", "answer_unheard", "be_interrupted", "take_back"],
    "fault": ["let_a_second_pass", "let_a_second_pass", *["let_a_bell_expire"] * 2, "silence", "empty_redis"],
}


@dataclass
class Holder:
    """An activation that believes it has its bell; ``held``: what it was given and has not answered."""

    name: str
    slot: int
    held: list[Entry] = field(default_factory=list)


class Protocol(RuleBasedStateMachine):
    """A runner with one warped node, the queue of its tasks, and the activations that these start."""

    client: Client

    @initialize()
    def begin(self) -> None:
        self.box = Mailbox(secrets.token_hex(8), "node")
        self.tasks: list[tuple[int, str]] = []
        self.holders: list[Holder] = []
        self.out: set[int] = set()
        self.answers: Counter[int] = Counter()
        self.last = "0-0"
        self.born = 0
        #: The processes that live and run; and those that were missed, a second ago.
        self.living: set[int] = set()
        self.missed: set[int] = set()
        #: Those that ended in good order.
        self.retired: set[int] = set()
        self.interrupted: list[str] = []
        #: Something broke that the next round of the runner is there for.
        self.broken = False
        self._make()

    def _make(self) -> None:
        self.client.set(keys.USUAL.run(self.box.run), "running", px=keys.RUN_TTL)
        self.client.set(keys.USUAL.node(self.box.run, self.box.node), "record", px=keys.DATA_TTL)
        reply = keys.USUAL.reply(self.box.run)
        if not self.client.exists(reply):
            self.client.xdel(reply, self.client.xadd(reply, {"n": ""}))
        self.box.make(self.client)

    @rule(data=st.data(), which=st.integers(0, 5), count=st.integers(1, 3))
    def step(self, data: st.DataObject, which: int, count: int) -> None:
        """Do one of the things that can happen now; one rule, since Hypothesis leaves whole rules out of a run."""
        holding = any(holder.held for holder in self.holders)
        who = ["celery"] * bool(self.tasks) + ["idle", "idle", "gone"] * bool(self.holders) + ["busy"] * 2 * holding
        step = data.draw(st.sampled_from(STEPS[data.draw(st.sampled_from([*who, "runner", "fault"]))]))
        getattr(self, step)(which, count)

    # -- the runner -------------------------------------------------------------------------------------------------

    def append(self, which: int, count: int) -> None:
        first = len(self.out) + len(self.answers)
        numbers = range(first, first + count)
        self.out.update(numbers)
        self._send(list(numbers), which % SLOTS + 1)

    def _send(self, numbers: Iterable[int], wanted: int) -> None:
        token, sent = self._append(numbers, wanted)
        if sent is None:
            self._audit()
        else:
            self.tasks += [(slot, token) for slot in sent[1]]

    def _append(self, numbers: Iterable[int], wanted: int) -> tuple[str, Any]:
        token = secrets.token_hex(4)
        entries = [packed_entry(number, 0, "", b"%d" % number) for number in numbers]
        return token, call(self.client, self.box.sending(entries, token=token, wanted=wanted, ttl=keys.RUNG_TTL))

    def _audit(self) -> None:
        """Make again what is missing, and send again what is neither in the mailbox nor answered."""
        self._make()
        there = {sequence for sequence, _ in waiting(self.client, [self.box])[0]}
        self._read()
        if missing := sorted(self.out - there):
            self._send(missing, 1)

    def read_replies(self, *_: int) -> None:
        """What was given back is sent again at once."""
        if given_back := self._read():
            self._send(given_back, 1)

    def _read(self) -> list[int]:
        """Read what was answered; return what was given back."""
        given_back = []
        for item in self.client.call("XRANGE", keys.USUAL.reply(self.box.run), f"({self.last}", "+"):
            self.last = item[0].decode()
            published: Any = as_published(item)
            for result in published.results:
                if result.kind == UNBEGUN:
                    given_back.append(result.sequence)
                else:
                    self.answers[result.sequence] += 1
                    self.out.discard(result.sequence)
        return sorted(self.out.intersection(given_back))

    def take_back(self, which: int, _: int) -> None:
        """A message is late, and may hear no interrupt: the ones behind it are sent to others."""
        holder = self._holding(which)
        mine = self._pending(holder)
        behind = [entry for entry in holder.held[1:] if entry.id in mine and entry.sequence in self.out]
        taken = self.box.withdraw(self.client, [entry.id for entry in behind])
        if taken:
            self._send([entry.sequence for entry in behind if entry.id.encode() in taken], 1)

    def look_around(self, which: int, count: int) -> None:
        """The runner's round: an audit, and bells for what is out; at once when a worker appeared."""
        if self.out:
            self._audit()
            token = secrets.token_hex(4)
            rung = call(self.client, self.box.ringing(token=token, wanted=count, ttl=keys.RUNG_TTL, force=which == 0))
            self.tasks += [(slot, token) for slot in rung]
        self.broken = False

    # -- Celery -----------------------------------------------------------------------------------------------------

    def start(self, which: int, count: int, *, again: bool = False) -> None:
        """A worker takes a task: whichever, since queues have several workers."""
        slot, token = self.tasks.pop(which % len(self.tasks))
        self.born += 1
        self.living.add(self.born)
        if self.client.exists(self.heartbeat):
            self.beat()
        holder = Holder(f"{self.box.run}.{self.born}.{token}-abcd-ef01.{slot}", slot)
        before = self.client.get(f"{self.box.bell}{slot}") or b"r:"
        if self._is_dead(before.decode()):
            before = b"r:"
        theirs = self._with_a_lease()
        for _ in range(2 if again else 1):
            beginning = self.box.begin(self.client, slot, holder.name, most=4, first=count - 1)
        free = before.startswith(b"r:") and (before[2:3] != b"+" or before[3:] == token.encode())
        assert (beginning is None) == (not free), "a bell that is held, or handed back for another, is left alone"
        if beginning is None:
            return
        assert theirs.isdisjoint(entry.id for entry in beginning.claimed)
        self._only_deaths_count(beginning.claimed)
        if beginning.record is None:
            self.client.delete(f"{self.box.bell}{slot}")
            self.broken = True
            return
        holder.held = [*beginning.claimed, *beginning.first]
        self.holders.append(holder)

    def start_again(self, which: int, count: int) -> None:
        """The answer to its first command is lost on the way, so it asks once more."""
        self.start(which, count, again=True)

    def deliver_twice(self, which: int, _: int) -> None:
        self.tasks.append(self.tasks[which % len(self.tasks)])

    def lose_a_task(self, which: int, _: int) -> None:
        self.tasks.pop(which % len(self.tasks))

    # -- activations ------------------------------------------------------------------------------------------------

    def _holder(self, which: int) -> Holder:
        return self.holders[which % len(self.holders)]

    def _has_its_bell(self, holder: Holder) -> bool:
        return self.client.get(f"{self.box.bell}{holder.slot}") == holder.name.encode()

    def read(self, which: int, count: int) -> None:
        holder = self._holder(which)
        if self.client.exists(self.box.stream):
            holder.held += self.box.receive(self.client, holder.name, count, None)
        else:
            self.holders.remove(holder)

    def _holding(self, which: int) -> Holder:
        holding = [holder for holder in self.holders if holder.held]
        return holding[which % len(holding)]

    def be_interrupted(self, which: int, _: int) -> None:
        """It says so of one message, gives back the others, and rings again if there is more."""
        holder = self._holding(which)
        late, *unbegun = holder.held
        said = [
            Answer(late, FAILURE, 0.0, 0.0, "", b""),
            *(Answer(each, UNBEGUN, 0.0, 0.0, "", b"") for each in unbegun),
        ]
        self.holders.remove(holder)
        try:
            over = self.box.publish(self.client, holder.name, said) is None
        except redis.ResponseError:  # the mailbox is gone: it breaks off
            over = True
        if not over:
            self.interrupted.append(holder.name)
        if call(self.client, self.box.releasing(holder.slot, holder.name, force=over)) == 1:
            self._hand_back_bell(holder)
        self._retire(holder)

    def answer(self, which: int, count: int) -> None:
        """Publish: also by one that was frozen, and whose messages others have by now."""
        holder = self._holding(which)
        if not self._publish(holder, count):
            self.holders.remove(holder)
        del holder.held[:count]

    def _publish(self, holder: Holder, count: int, *, begun: int = 1_000) -> bool:
        """Publish the first of what it holds, or give back what was not ``begun``; False: the run is over, or the
        mailbox is gone, so that it breaks off.
        """
        kinds = [RESULT if place < begun else UNBEGUN for place in range(len(holder.held[:count]))]
        answers = [Answer(entry, kind, 0.0, 0.0, "", b"") for entry, kind in zip(holder.held, kinds, strict=False)]
        try:
            return not answers or self.box.publish(self.client, holder.name, answers) is not None
        except redis.ResponseError:
            return False

    def claim(self, which: int, _: int) -> None:
        holder = self._holder(which)
        if self.client.exists(self.box.stream):
            theirs, left = self._with_a_lease(), self._left_by_other_dead(holder)
            has_its_bell = self._has_its_bell(holder)
            claimed = self.box.claim(self.client, holder.name, 4)
            assert has_its_bell or not claimed, "who lost its bell takes nothing over"
            assert claimed or not (left and has_its_bell), "what the dead hold is taken over, also with their bells"
            assert theirs.isdisjoint(entry.id for entry in claimed), "only what the dead hold is claimed"
            self._only_deaths_count(claimed)
            holder.held += claimed

    def refresh(self, which: int, _: int) -> None:
        """The keeper's look: who lost its bell stops at its next message."""
        holder = self._holder(which)
        if SEEN[call(self.client, self.box.refreshing(holder.slot, holder.name, ""))] != "held":
            self.holders.remove(holder)

    def release(self, which: int, _: int) -> None:
        """Idle: let go unless something came, as it may just now, for which nobody rings."""
        holder = self._holder(which)
        if which % 2:
            self.append(0, 1)
        has_its_bell = self._has_its_bell(holder)
        if not holder.held and call(self.client, self.box.releasing(holder.slot, holder.name, force=False)) != 1:
            assert not (has_its_bell and self._undelivered()), "nobody lets go while a message waits"
            self.holders.remove(holder)

    def hand_back(self, which: int, _: int) -> None:
        """Others wait, or the term is over: ring for the next one, and leave whatever is held to its claim."""
        holder = self._holder(which)
        self._hand_back_bell(holder)
        self.holders.remove(holder)

    def _hand_back_bell(self, holder: Holder) -> None:
        token = secrets.token_hex(4)
        if call(self.client, self.box.handing_back(holder.slot, holder.name, token)):
            self.tasks.append((holder.slot, token))

    def give_up(self, which: int, _: int) -> None:
        """The worker shuts down."""
        holder = self._holder(which)
        call(self.client, self.box.releasing(holder.slot, holder.name, force=True))
        self.holders.remove(holder)
        self.broken = True  # nobody takes over at once what it leaves behind

    def retire(self, which: int, _: int) -> None:
        """It was told to end, and gives back what it did not begin; not while Redis is away, sometimes."""
        holder = self._holder(which)
        if which:
            self._publish(holder, len(holder.held), begun=0)
            self._hand_back_bell(holder)
        self.holders.remove(holder)
        self._retire(holder)

    def _retire(self, holder: Holder) -> None:
        """Its process ends in good order: what it leaves is the fault of no message."""
        process = names.Holder.read(holder.name).process
        self.living.discard(process.pid)
        self.retired.add(process.pid)
        say_death(self.client, str(process), Death(os.EX_TEMPFAIL, told=True))

    # -- lines that die after a command was done and before its answer came: who asked for it does not know ----------

    def append_unheard(self, which: int, count: int) -> None:
        first = len(self.out) + len(self.answers)
        self.out.update(range(first, first + count))
        self._append(range(first, first + count), which % SLOTS + 1)
        self.broken = True  # nobody sends the tasks of what was rung

    def answer_unheard(self, which: int, count: int) -> None:
        """It is held on to, and comes once more with the next."""
        self._publish(self._holding(which), count)

    def exchange_unheard(self, which: int, count: int) -> None:
        """Publish and read: the first is done again on a new line; what it was given nobody knows."""
        if not self.client.exists(self.box.stream):
            return
        holder = self._holder(which)
        self._publish(holder, count)
        self.box.receive(self.client, holder.name, count, None)
        self._publish(holder, len(holder.held))
        call(
            self.client, dropping(f"{self.box.bell}{holder.slot}", holder.name)
        )  # its process lives: it would not lapse
        self.holders.remove(holder)
        self.broken = True

    # -- what breaks ------------------------------------------------------------------------------------------------

    def die(self, which: int, count: int) -> None:
        """Sometimes somebody saw it die and says so, which frees its bell at once; else the heartbeat leaves it out."""
        holder = self._holder(which)
        process = names.Holder.read(holder.name).process
        self.holders.remove(holder)
        self.living.discard(process.pid)
        if which % 2:
            self.tasks.append((holder.slot, "late"))  # its task, once more, comes before anybody rings
        if count == 1:
            say_death(self.client, str(process), Death(-9))
        elif self.client.exists(self.heartbeat):
            self.beat()

    def stop(self, which: int, _: int) -> None:
        """SIGSTOP: the heartbeat leaves it out; it wakes up when others may have gone on for it, and knows nothing."""
        self.living.discard(names.Holder.read(self._holder(which).name).process.pid)
        self.beat()

    def silence(self, *_: int) -> None:
        """Redis stood still or was away for longer than a heartbeat lasts, or the one that gives it died."""
        self.client.delete(self.heartbeat)

    def let_a_second_pass(self, *_: int) -> None:
        """The living are heard again by then."""
        self.beat()
        born = range(1, self.born + 1)
        signs = self.client.together(*[("EXISTS", self._sign(pid)) for pid in born])
        self.missed |= {pid for pid, there in zip(born, signs, strict=True) if there}

    @property
    def heartbeat(self) -> str:
        return keys.USUAL.heartbeat(self.box.run, "abcd")

    def beat(self) -> None:
        self.client.set(self.heartbeat, "".join(f" {pid} " for pid in sorted(self.living)), px=keys.DATA_TTL)

    def _sign(self, pid: int) -> str:
        """Says that a process was missed."""
        return f"celerypipe:missed:{self.box.run}.{pid}.abcd"

    def _is_dead(self, name: str) -> bool:
        """Somebody saw its end; or it was missed twice, with a second between, by a heartbeat that is there."""
        process = names.Holder.read(name).process
        if self.client.exists(keys.USUAL.death(str(process))):
            return True
        missed = process.pid in self.missed and self.client.exists(self._sign(process.pid))
        return bool(missed and self.client.exists(self.heartbeat) and process.pid not in self.living)

    def _only_deaths_count(self, claimed: list[Entry]) -> None:
        for entry in claimed:
            if entry.holder and not (death_of(self.client, entry.holder) or Death(None)).told:
                assert self._is_dead(entry.holder), "a lapse is a take-over, no death"
                pid = names.Holder.read(entry.holder).process.pid
                assert pid not in self.retired, "a process that ended in good order was killed by no message"

    def let_a_bell_expire(self, which: int, _: int) -> None:
        """Of a dead one, of one that lives and does not know it yet, or of nobody who came."""
        self.broken |= bool(self.client.delete(f"{self.box.bell}{which % SLOTS}"))

    def empty_redis(self, *_: int) -> None:
        bells = [f"{self.box.bell}{slot}" for slot in range(SLOTS)]
        of_the_run = (
            keys.USUAL.run(self.box.run),
            keys.USUAL.reply(self.box.run),
            keys.USUAL.node(self.box.run, self.box.node),
        )
        self.client.delete(*of_the_run, self.box.stream, *bells)
        self.tasks.clear()
        self.broken = True

    # -- what must hold ---------------------------------------------------------------------------------------------

    @invariant()
    def time_stands_still(self) -> None:
        """What expires is a step: a machine that is busy for two seconds must not be one."""
        for slot in range(SLOTS):
            self.client.pexpire(f"{self.box.bell}{slot}", keys.DATA_TTL)
        self.client.pexpire(keys.USUAL.run(self.box.run), keys.DATA_TTL)
        left = {pid: keys.MISSED_TTL - (keys.MISSED if pid in self.missed else 0) for pid in range(1, self.born + 1)}
        self.client.together(*[("PEXPIRE", self._sign(pid), milliseconds) for pid, milliseconds in left.items()])

    @invariant()
    def somebody_comes(self) -> None:
        if not self.broken and self._undelivered():
            assert any(self.client.exists(f"{self.box.bell}{slot}") for slot in range(SLOTS))

    def _undelivered(self) -> bool:
        try:
            (group,) = self.client.xinfo_groups(self.box.stream)
        except redis.ResponseError:  # no such key
            return False
        return bool(self.client.xrange(self.box.stream, b"(" + group["last-delivered-id"], "+", count=1))

    def _pending(self, holder: Holder) -> set[str]:
        if not self.client.exists(self.box.stream):
            return set()
        found = self.client.xpending_range(self.box.stream, keys.GROUP, "-", "+", 1_000, holder.name)
        return {each["message_id"].decode() for each in found}

    def _left_by_other_dead(self, holder: Holder) -> bool:
        """Is there something to be taken over? Not what a stopped one holds itself, which wakes up and claims."""
        consumers = self.client.xinfo_consumers(self.box.stream, keys.GROUP)
        left = {each["name"].decode() for each in consumers if each["pending"]}
        return any(self._is_dead(name) for name in left - {holder.name})

    def _with_a_lease(self) -> set[str]:
        """What those hold who live and have their bell."""
        leases = {self.client.get(f"{self.box.bell}{slot}") for slot in range(SLOTS)}
        theirs = [
            self._pending(holder)
            for holder in self.holders
            if holder.name.encode() in leases and not self._is_dead(holder.name)
        ]
        return set().union(*theirs)

    @invariant()
    def who_was_given_a_message_knows_it(self) -> None:
        for holder in self.holders:
            assert self._pending(holder) <= {entry.id for entry in holder.held}

    @invariant()
    def who_was_interrupted_keeps_nothing(self) -> None:
        for name in self.interrupted:
            assert not self._pending(Holder(name, 0))

    @invariant()
    def each_message_is_answered_once(self) -> None:
        assert all(times == 1 for times in self.answers.values()), self.answers

    def teardown(self) -> None:
        """Nothing breaks any more: all is answered within a few rounds."""
        for _ in range(ROUNDS):
            if not self.out:
                break
            for slot in range(SLOTS):  # bells whose task was lost end by themselves; those of the dead are found
                if (self.client.get(f"{self.box.bell}{slot}") or b"").startswith(b"r:"):
                    self.client.delete(f"{self.box.bell}{slot}")
            self.look_around(1, SLOTS)
            self.let_a_second_pass()
            self.time_stands_still()
            self.look_around(1, SLOTS)
            while self.tasks:
                self.start(0, 1)
            for _ in range(len(self.holders)):
                self._run_to_its_end(self.holders[0])
            self.read_replies()
        assert not self.out
        self.each_message_is_answered_once()
        self.empty_redis()

    def _run_to_its_end(self, holder: Holder) -> None:
        """Let an activation do what it does while messages come, until it lets go."""
        self.holders.remove(holder)
        self.holders.insert(0, holder)
        while holder in self.holders:
            for step in (self.refresh, self.claim, self.read, self.answer, self.release):
                if holder in self.holders and (holder.held or step != self.answer):
                    step(0, 1_000)


@pytest.mark.timeout(3600 if LONG else 400)
def test_the_protocol_holds_whatever_happens_in_between(redis_client: Client) -> None:
    class Here(Protocol):
        client = redis_client

    examples, steps = (5_000, 80) if LONG else (40, 40)
    health = (HealthCheck.too_slow, HealthCheck.data_too_large)
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=health
        ),
    )
