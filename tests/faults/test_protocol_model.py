"""A model check of bell, mailbox and claim: Hypothesis interleaves what runner, Celery and activations do.

Each rule is one atomic step of the protocol against a real Redis, or one thing that breaks: an activation dies or
freezes, a lease expires, a task is lost or comes twice, Redis is emptied. Two invariants hold after every step: no
message waits with nobody coming, and no message is answered twice. At the end the faults stop; then whatever state
was reached, every message has its one answer within a few of the runner's rounds.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
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
    precondition,
    rule,
    run_state_machine_as_test,
)

from celerypipe import keys
from celerypipe.connection import Client
from celerypipe.mailbox import RESULT, Answer, Entry, Mailbox, as_published, packed_entry
from celerypipe.scripts import REFRESH

SLOTS = 3
LONG = os.environ.get("CELERYPIPE_FAULTS") == "long"
#: Rounds of the runner within which all is answered once nothing breaks any more.
ROUNDS = 6
NUMBERS = st.integers(0, 1_000)


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
        #: Something broke that the next round of the runner is there for.
        self.broken = False
        self._make()

    def _make(self) -> None:
        self.client.set(keys.run(self.box.run), "running", px=keys.RUN_TTL)
        self.client.set(keys.node(self.box.run, self.box.node), "record", px=keys.DATA_TTL)
        reply = keys.reply(self.box.run)
        if not self.client.exists(reply):
            self.client.xdel(reply, self.client.xadd(reply, {"n": ""}))
        self.box.make(self.client)

    # -- the runner -------------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 4), wanted=st.integers(1, SLOTS))
    def append(self, count: int, wanted: int) -> None:
        first = len(self.out) + len(self.answers)
        numbers = range(first, first + count)
        self.out.update(numbers)
        self._send(list(numbers), wanted)

    def _send(self, numbers: list[int], wanted: int) -> None:
        token = secrets.token_hex(4)
        entries = [packed_entry(number, 0, "", b"%d" % number) for number in numbers]
        sent = self.box.send(self.client, entries, token=token, wanted=wanted, ttl=keys.RUNG_TTL)
        if sent is None:
            self._audit()
        else:
            self.tasks += [(slot, token) for slot in sent[1]]

    def _audit(self) -> None:
        """Make again what is missing, and send again what is neither in the mailbox nor answered."""
        self._make()
        there = {sequence for sequence, _ in self.box.waiting(self.client)}
        self.read_replies()
        if missing := sorted(self.out - there):
            self._send(missing, 1)

    @rule()
    def read_replies(self) -> None:
        for item in self.client.call("XRANGE", keys.reply(self.box.run), f"({self.last}", "+"):
            self.last = item[0].decode()
            published: Any = as_published(item)
            for result in published.results:
                self.answers[result.sequence] += 1
                self.out.discard(result.sequence)

    @rule(wanted=st.integers(1, SLOTS), force=st.booleans())
    def look_around(self, wanted: int, force: bool) -> None:
        """The runner's round: bells for what is out, and an audit."""
        if self.out:
            self._audit()
            token = secrets.token_hex(4)
            rung = self.box.ring(self.client, token=token, wanted=wanted, ttl=keys.RUNG_TTL, force=force)
            self.tasks += [(slot, token) for slot in rung]
        self.broken = False

    # -- Celery -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.tasks)
    @rule(which=NUMBERS, first=st.integers(0, 2))
    def start(self, which: int, first: int) -> None:
        """A worker takes a task: whichever, since queues have several workers."""
        slot, _ = self.tasks.pop(which % len(self.tasks))
        self.born += 1
        holder = Holder(f"host.{self.born}.token.{slot}", slot)
        beginning = self.box.begin(self.client, slot, holder.name, most=4, first=first)
        if beginning is None:
            return
        if beginning.record is None or not beginning.running:
            self.client.delete(f"{self.box.bell}{slot}")
            self.broken = True
            return
        holder.held = [*beginning.claimed, *beginning.first]
        self.holders.append(holder)

    @precondition(lambda self: self.tasks)
    @rule(which=NUMBERS)
    def deliver_twice(self, which: int) -> None:
        self.tasks.append(self.tasks[which % len(self.tasks)])

    @precondition(lambda self: self.tasks)
    @rule(which=NUMBERS)
    def lose_a_task(self, which: int) -> None:
        self.tasks.pop(which % len(self.tasks))

    # -- activations ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.holders)
    @rule(which=NUMBERS, count=st.integers(1, 3))
    def read(self, which: int, count: int) -> None:
        holder = self.holders[which % len(self.holders)]
        if self.client.exists(self.box.stream):
            holder.held += self.box.receive(self.client, holder.name, count, None)
        else:
            self.holders.remove(holder)

    @precondition(lambda self: self.holders)
    @rule(which=NUMBERS, count=st.integers(1, 3))
    def answer(self, which: int, count: int) -> None:
        """Publish: also by one that was frozen, and whose messages others have by now."""
        holder = self.holders[which % len(self.holders)]
        done, holder.held = holder.held[:count], holder.held[count:]
        answers = [Answer(entry, RESULT, 0.0, 0.0, "", entry.data) for entry in done]
        try:
            over = bool(answers) and self.box.publish(self.client, holder.name, answers) is None
        except redis.ResponseError:  # the mailbox is gone: it breaks off
            over = True
        if over:
            self.holders.remove(holder)

    @precondition(lambda self: self.holders)
    @rule(which=NUMBERS)
    def claim(self, which: int) -> None:
        holder = self.holders[which % len(self.holders)]
        if self.client.exists(self.box.stream):
            holder.held += self.box.claim(self.client, holder.name, 4)

    @precondition(lambda self: self.holders)
    @rule(which=NUMBERS)
    def refresh(self, which: int) -> None:
        """The keeper's look: who lost its bell stops at its next message."""
        holder = self.holders[which % len(self.holders)]
        names = (f"{self.box.bell}{holder.slot}", keys.run(self.box.run), self.box.stream)
        if REFRESH(self.client, names, holder.name, keys.HELD_TTL, "") != 1:
            self.holders.remove(holder)
            self.broken = True  # a run that is over lets its bells lapse

    @precondition(lambda self: any(not holder.held for holder in self.holders))
    @rule(which=NUMBERS)
    def release(self, which: int) -> None:
        """Idle: let go unless something came."""
        idle = [holder for holder in self.holders if not holder.held]
        holder = idle[which % len(idle)]
        if self.box.release(self.client, holder.slot, holder.name, force=False):
            self.holders.remove(holder)

    @precondition(lambda self: self.holders)
    @rule(which=NUMBERS)
    def hand_back(self, which: int) -> None:
        """Others wait, or the term is over: ring for the next one, and leave whatever is held to its claim."""
        holder = self.holders[which % len(self.holders)]
        token = secrets.token_hex(4)
        if self.box.hand_back(self.client, holder.slot, holder.name, token):
            self.tasks.append((holder.slot, token))
        self.holders.remove(holder)

    # -- what breaks ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.holders)
    @rule(which=NUMBERS)
    def die(self, which: int) -> None:
        self.holders.pop(which % len(self.holders))

    @rule(slot=st.integers(0, SLOTS - 1))
    def let_a_bell_expire(self, slot: int) -> None:
        """Of a dead one, of one that is frozen and does not know it yet, or of nobody who came."""
        self.broken |= bool(self.client.delete(f"{self.box.bell}{slot}"))

    @rule()
    def empty_redis(self) -> None:
        bells = [f"{self.box.bell}{slot}" for slot in range(SLOTS)]
        of_the_run = keys.run(self.box.run), keys.reply(self.box.run), keys.node(self.box.run, self.box.node)
        self.client.delete(*of_the_run, self.box.stream, *bells)
        self.tasks.clear()
        self.broken = True

    # -- what must hold ---------------------------------------------------------------------------------------------

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

    @invariant()
    def each_message_is_answered_once(self) -> None:
        assert all(times == 1 for times in self.answers.values()), self.answers

    def teardown(self) -> None:
        """Nothing breaks any more: all is answered within a few rounds."""
        for _ in range(ROUNDS):
            if not self.out:
                break
            living = {holder.name.encode() for holder in self.holders}
            for slot in range(SLOTS):  # leases of the dead, and bells whose task was lost, end by themselves
                if self.client.get(f"{self.box.bell}{slot}") not in living:
                    self.client.delete(f"{self.box.bell}{slot}")
            self.look_around(SLOTS, force=False)
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
        steps = (self.refresh, self.claim, lambda at: self.read(at, 3), lambda at: self.answer(at, 1_000))
        while holder in self.holders:
            for step in steps:
                if holder in self.holders:
                    step(self.holders.index(holder))
            if holder in self.holders and self.box.release(self.client, holder.slot, holder.name, force=False):
                self.holders.remove(holder)


@pytest.mark.timeout(3600 if LONG else 120)
def test_the_protocol_holds_whatever_happens_in_between(redis_client: Client) -> None:
    class Here(Protocol):
        client = redis_client

    examples, steps = (5_000, 80) if LONG else (60, 40)
    health = (HealthCheck.too_slow, HealthCheck.data_too_large)
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=health
        ),
    )
