"""Who is dead, as the scripts see it: not who is only missing for a moment."""

from __future__ import annotations

import secrets

import pytest

from celerypipe.mailbox.liveness import OVER, is_dead
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.wire import packed_entry
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.script import call
from tests.runs.mailbox import box_of


class Worker:
    """A worker with two processes, 7 and 8, as others see it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.life = secrets.token_hex(4)
        self.beat = keys.USUAL.heartbeat("my.box", self.life)

    def holder(self, pid: int, slot: int = 0) -> str:
        return f"my.box.{pid}.token-{self.life}-{secrets.token_hex(2)}.{slot}"

    def say(self, *pids: int) -> None:
        self.client.set(self.beat, "".join(f" {pid} " for pid in pids), px=60_000)

    def wait(self, milliseconds: int) -> None:
        """As if so much time had passed since it was missed first."""
        for pid in (7, 8):
            name = f"celerypipe:missed:my.box.{pid}.{self.life}"
            left = self.client.pttl(name)
            if left > milliseconds:
                self.client.pexpire(name, left - milliseconds)
            else:
                self.client.delete(name)

    def is_dead(self, pid: int) -> bool:
        return is_dead(self.client, self.holder(pid))


@pytest.fixture
def worker(redis_client: Client) -> Worker:
    return Worker(redis_client)


def test_who_is_named_lives_and_a_name_of_nobody_s_counts_as_living(worker: Worker, redis_client: Client) -> None:
    worker.say(7, 18)
    assert not worker.is_dead(7)
    assert not worker.is_dead(8)  # for the first time: it may have begun a moment ago
    assert not is_dead(redis_client, "me.0")


def test_a_process_that_its_heartbeat_leaves_out_is_dead_a_second_later(worker: Worker) -> None:
    worker.say(7)
    assert not worker.is_dead(8)
    worker.wait(keys.MISSED - 300)
    assert not worker.is_dead(8)
    worker.wait(300)
    assert worker.is_dead(8)
    assert worker.is_dead(8)
    assert not worker.is_dead(7)
    worker.say(7, 8)  # it was stopped, and goes on
    assert not worker.is_dead(8)


def test_who_is_not_heard_at_all_gets_the_time_to_come_back_after_redis_was_away(worker: Worker) -> None:
    assert not worker.is_dead(7)  # Redis stood still for so long that the heartbeat is gone
    worker.wait(keys.MISSED + 300)
    assert not worker.is_dead(7)
    worker.say(7)
    assert not worker.is_dead(7)
    worker.client.delete(worker.beat)
    worker.wait(keys.MISSED_TTL)
    assert not worker.is_dead(7)  # that begins anew
    worker.wait(keys.MISSED_IN_SILENCE)
    assert worker.is_dead(7)


def test_a_worker_that_is_over_is_dead_at_once_with_all_its_processes(worker: Worker) -> None:
    worker.client.set(worker.beat, OVER, px=60_000)
    assert worker.is_dead(7)
    assert worker.is_dead(8)


def test_an_entry_comes_with_the_name_of_who_died_and_without_where_it_is_only_taken_over(
    worker: Worker, redis_client: Client
) -> None:
    client, box = redis_client, box_of(None, secrets.token_hex(4), "node", redis_client)
    one, two, me = worker.holder(7, 0), worker.holder(8, 1), worker.holder(7, 2)
    worker.say(7, 8)
    _send(client, box, 1, 2)
    for slot, holder in enumerate((one, two)):
        assert call(client, box.taking(slot, holder))
        box.receive(client, holder, 1, None)
    assert call(client, box.taking(2, me))
    assert box.claim(client, me, 9) == []
    client.delete(f"{box.bell}0")  # of one that lives: it lost its bell, and will publish nothing
    assert [entry.holder for entry in box.claim(client, me, 9)] == [""]
    client.set(worker.beat, " 7 ", px=60_000)
    assert box.claim(client, me, 9) == []
    worker.wait(keys.MISSED)
    assert call(client, box.ringing(token="t", wanted=2, ttl=2000)) == [0, 1]  # the bell of the dead is free, too
    assert [entry.holder for entry in box.claim(client, me, 9)] == [two]


def _send(client: Client, box: Mailbox, *numbers: int) -> None:
    entries = [packed_entry(number, 0, "", b"body") for number in numbers]
    assert call(client, box.sending(entries, token="t", wanted=0, ttl=2000)) is not None
