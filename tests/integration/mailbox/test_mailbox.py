"""The protocol itself, against a real Redis: bells, claims, publishing once."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import redis

from celerypipe.mailbox.mailbox import Beginning, Mailbox, heads, reading, received, waiting
from celerypipe.mailbox.wire import HEAD, NOTE, RESULT, Answer, as_published, packed_entry
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, connect
from celerypipe.redis.script import call
from celerypipe.redis.signing import Keyring
from celerypipe.worker.activation.outbox import Outbox, exchange
from tests.runs.mailbox import box_of

#: An activation that answers a token.
NAMED = "host.1.{}-abcd-ef01.0"


@pytest.fixture
def mailbox(redis_client: Client) -> Mailbox:
    """A mailbox of a run of its own, with a reply stream and a run lease."""
    return box_of(None, secrets.token_hex(4), "node", redis_client)


def send(client: Client, box: Mailbox, *numbers: int, wanted: int = 1) -> list[int]:
    entries = [packed_entry(n, 0, "", b"%d" % n) for n in numbers]
    answer = call(client, box.sending(entries, token="t", wanted=wanted, ttl=2000))
    assert answer is not None
    return answer[1]


def answer_to(client: Client, box: Mailbox, consumer: str, entries: list) -> int | None:
    return box.publish(client, consumer, [Answer(entry, RESULT, 0.0, 0.0, "", entry.data) for entry in entries])


def published_in(client: Client, box: Mailbox) -> list[Any]:
    return [as_published(item) for item in client.call("XRANGE", keys.USUAL.reply(box.run), "-", "+")]


def test_the_first_message_rings_and_the_next_ones_do_not(redis_client: Client, mailbox: Mailbox) -> None:
    assert send(redis_client, mailbox, 1) == [0]
    assert send(redis_client, mailbox, 2, 3) == []
    assert send(redis_client, mailbox, 4, wanted=3) == [1, 2]
    assert redis_client.get(f"{mailbox.bell}0") == b"r:t"


def test_a_mailbox_that_is_gone_takes_nothing(redis_client: Client, mailbox: Mailbox) -> None:
    redis_client.delete(mailbox.stream)
    assert call(redis_client, mailbox.sending([packed_entry(1, 0, "", b"1")], token="t", wanted=1, ttl=2000)) is None
    assert not redis_client.exists(mailbox.stream)


def test_who_cannot_answer_a_bell_takes_it_back(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1)
    mailbox.unring(redis_client, 0, "another")
    assert redis_client.get(f"{mailbox.bell}0") == b"r:t"
    mailbox.unring(redis_client, 0, "t")
    assert call(redis_client, mailbox.ringing(token="again", wanted=1, ttl=2000)) == [0]
    call(redis_client, mailbox.taking(0, "me.0"))
    mailbox.unring(redis_client, 0, "again")
    assert redis_client.get(f"{mailbox.bell}0") == b"me.0"


def test_a_bell_is_taken_once_by_whatever_token(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1)
    assert call(redis_client, mailbox.taking(0, "host.1.late-token.0"))
    assert not call(redis_client, mailbox.taking(0, "host.2.other.0"))
    assert call(redis_client, mailbox.taking(1, "host.2.other.1"))


def begin(client: Client, box: Mailbox, consumer: str, *, first: int = 1) -> Beginning | None:
    client.set(keys.USUAL.node(box.run, box.node), "record", px=keys.DATA_TTL)
    return box.begin(client, 0, consumer, most=10, first=first)


def test_who_takes_the_bell_gets_the_first_message_with_it(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1, 2)
    mine = begin(redis_client, mailbox, "me.0")
    assert mine is not None
    assert (mine.record, mine.running, mine.claimed) == (b"record", True, [])
    assert [entry.sequence for entry in mine.first] == [1]
    assert mine.now > int(mine.first[0].id.partition("-")[0]) / 1000 - 0.01
    assert begin(redis_client, mailbox, "you.0") is None  # and nothing with it
    assert [entry.sequence for entry in mailbox.receive(redis_client, "me.0", 10, None)] == [2]


def test_a_bell_taken_before_there_is_a_message_does_no_harm(redis_client: Client, mailbox: Mailbox) -> None:
    early = begin(redis_client, mailbox, "me.0")
    assert early is not None
    assert early.first == []
    assert send(redis_client, mailbox, 1) == []  # somebody is there
    assert [entry.sequence for entry in mailbox.receive(redis_client, "me.0", 10, None)] == [1]


def test_what_the_dead_left_comes_with_the_bell_and_before_all_that_is_new(
    redis_client: Client, mailbox: Mailbox
) -> None:
    send(redis_client, mailbox, 1, 2)
    call(redis_client, mailbox.taking(0, "dead.0"))
    mailbox.receive(redis_client, "dead.0", 1, None)
    redis_client.delete(f"{mailbox.bell}0")
    mine = begin(redis_client, mailbox, "me.0")
    assert mine is not None
    assert [entry.sequence for entry in mine.claimed] == [1]
    assert mine.first == []


def test_who_asks_again_because_the_answer_was_lost_gets_the_same_messages(
    redis_client: Client, mailbox: Mailbox
) -> None:
    send(redis_client, mailbox, 1, 2)
    begin(redis_client, mailbox, "me.0")  # and the answer never arrives
    again = begin(redis_client, mailbox, "me.0")
    assert again is not None
    assert [entry.sequence for entry in again.claimed] == [1]
    assert again.first == []


def test_nothing_is_taken_along_by_who_must_end_or_whose_run_is_over(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1)
    ends = begin(redis_client, mailbox, "me.0", first=0)
    assert ends is not None
    assert ends.first == []
    redis_client.set(keys.USUAL.run(mailbox.run), "cancelled", px=keys.RUN_TTL)
    over = begin(redis_client, mailbox, "me.0")
    assert over is not None
    assert (over.running, over.first) == (False, [])
    assert [entry.sequence for entry in mailbox.receive(redis_client, "me.0", 10, None)] == [1]


def test_a_mailbox_that_is_gone_begins_with_nothing(redis_client: Client, mailbox: Mailbox) -> None:
    redis_client.delete(mailbox.stream)
    mine = begin(redis_client, mailbox, "me.0")
    assert mine is not None
    assert (mine.running, mine.claimed, mine.first) == (True, [], [])
    assert not redis_client.exists(mailbox.stream)


def test_release_keeps_the_bell_while_an_entry_waits_that_nobody_was_given(
    redis_client: Client, mailbox: Mailbox
) -> None:
    send(redis_client, mailbox, 1)
    call(redis_client, mailbox.taking(0, "me.0"))
    assert call(redis_client, mailbox.releasing(0, "me.0", force=False)) == 1
    (entry,) = mailbox.receive(redis_client, "me.0", 10, None)
    assert call(redis_client, mailbox.releasing(0, "me.0", force=False)) == 0  # given to me: nobody else is needed
    assert redis_client.get(f"{mailbox.bell}0") is None
    assert call(redis_client, mailbox.releasing(0, "me.0", force=False)) == -1  # not mine any more: nothing to keep
    assert entry.data == b"1"


def test_a_handed_back_bell_can_be_taken_by_the_next(redis_client: Client, mailbox: Mailbox) -> None:
    call(redis_client, mailbox.taking(0, "me.0"))
    assert call(redis_client, mailbox.handing_back(0, "me.0", "again"))
    assert redis_client.get(f"{mailbox.bell}0") == b"r:+again"
    assert not call(redis_client, mailbox.handing_back(0, "me.0", "twice"))
    for known in [NAMED.format("stray"), "nameless.0"]:
        assert begin(redis_client, mailbox, known) is None, "it is not the one whose task was sent"
    assert begin(redis_client, mailbox, NAMED.format("again")) is not None
    assert call(redis_client, mailbox.handing_back(0, NAMED.format("again"), "refused"))
    mailbox.unring(redis_client, 0, "refused")
    assert not redis_client.exists(f"{mailbox.bell}0")
    call(redis_client, mailbox.taking(0, "me.0"))
    assert call(redis_client, mailbox.handing_back(0, "me.0", "again"))
    assert call(redis_client, mailbox.taking(0, "you.0"))


def test_claims_follow_the_owner_and_not_the_age(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1, 2, 3)
    call(redis_client, mailbox.taking(0, "alive.0"))
    mailbox.receive(redis_client, "alive.0", 2, None)
    call(redis_client, mailbox.taking(1, "me.1"))
    assert mailbox.claim(redis_client, "me.1", 10) == []  # however long alive.0 works on them
    redis_client.delete(f"{mailbox.bell}0")  # its lease lapsed
    assert [entry.data for entry in mailbox.claim(redis_client, "me.1", 10)] == [b"1", b"2"]
    assert mailbox.claim(redis_client, "me.1", 10) == []
    consumers = {c["name"] for c in redis_client.xinfo_consumers(mailbox.stream, keys.GROUP)}
    assert consumers == {b"me.1"}  # alive.0 held nothing any more and was forgotten


def test_a_slot_taken_by_another_does_not_protect_its_former_holder(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1)
    call(redis_client, mailbox.taking(0, "old.0"))
    mailbox.receive(redis_client, "old.0", 1, None)
    redis_client.delete(f"{mailbox.bell}0")
    call(redis_client, mailbox.taking(0, "new.0"))
    assert [entry.sequence for entry in mailbox.claim(redis_client, "new.0", 10)] == [1]


def test_a_result_is_published_once_by_who_holds_the_message(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1, 2)
    call(redis_client, mailbox.taking(0, "old.0"))
    entries = mailbox.receive(redis_client, "old.0", 2, None)
    redis_client.delete(f"{mailbox.bell}0")
    call(redis_client, mailbox.taking(0, "new.0"))
    claimed = mailbox.claim(redis_client, "new.0", 10)
    assert answer_to(redis_client, mailbox, "old.0", entries) == 0  # came too late: none of it counts
    assert answer_to(redis_client, mailbox, "new.0", claimed) == 1
    assert answer_to(redis_client, mailbox, "new.0", claimed) == 1  # and not twice
    (published,) = published_in(redis_client, mailbox)
    assert (published.node, published.worker, [result.data for result in published.results]) == (
        "node",
        "new.0",
        [b"1", b"2"],
    )
    assert redis_client.xlen(mailbox.stream) == 0


def test_more_results_than_one_command_of_lua_takes_are_published_too(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, *range(5000))
    entries = mailbox.receive(redis_client, "h.1.one.0", 5000, None)
    assert answer_to(redis_client, mailbox, "h.1.one.0", entries) == 5
    found = [result.sequence for published in published_in(redis_client, mailbox) for result in published.results]
    assert found == list(range(5000))
    assert not redis_client.xlen(mailbox.stream)


def test_of_a_batch_only_what_is_still_mine_is_published(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1, 2, 3, 4)
    entries = mailbox.receive(redis_client, "me.0", 4, None)
    mailbox.withdraw(redis_client, [entries[1].id])
    shuffled = [entries[2], entries[0], entries[1], entries[3], entries[0]]  # one of them twice
    assert answer_to(redis_client, mailbox, "me.0", shuffled) == 1
    (published,) = published_in(redis_client, mailbox)
    assert [result.sequence for result in published.results] == [3, 1, 4]
    assert redis_client.xpending(mailbox.stream, keys.GROUP)["pending"] == 0


def test_an_outbox_that_the_keeper_just_emptied_does_not_stop_the_reading(
    redis_client: Client, redis_url: str, mailbox: Mailbox
) -> None:
    class Emptied(Outbox):
        @property
        def waiting(self) -> bool:
            with connect(redis_url) as keeper:
                self.flush(keeper)
            return True

    send(redis_client, mailbox, 1, 2)
    call(redis_client, mailbox.taking(0, "me.0"))
    (entry,) = mailbox.receive(redis_client, "me.0", 1, None)
    box = Emptied(mailbox, "me.0", room=9, budget=9)
    box.add(Answer(entry, RESULT, 0.0, 0.0, "", b""))
    answer = exchange(redis_client, [box], reading([mailbox], "me.0", 1, 10))
    found = received(redis_client, [mailbox], "me.0", answer)
    assert [each.sequence for each in found[mailbox.stream]] == [2]
    assert len(published_in(redis_client, mailbox)) == 1


@pytest.mark.parametrize("asks_more", [False, True])
@pytest.mark.parametrize("method", ["ask", "answers"])
def test_a_result_on_a_line_that_dies_is_published_once(
    redis_url: str, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, method: str, asks_more: bool
) -> None:
    """Before its command was written, or after that was done."""
    with connect(redis_url) as client:
        send(client, mailbox, 1, 2)
        call(client, mailbox.taking(0, "me.0"))
        (entry,) = mailbox.receive(client, "me.0", 1, None)
        box = Outbox(mailbox, "me.0", room=9, budget=9)
        box.add(Answer(entry, RESULT, 0.0, 0.0, "", b""))

        def die(*given: Any) -> None:
            if method == "answers":
                getattr(Client, method)(client, *given)
            monkeypatch.undo()
            raise redis.ConnectionError("the line died")

        monkeypatch.setattr(client, method, die)
        if asks_more:
            with pytest.raises(redis.ConnectionError, match="the line died"):
                exchange(client, [box], reading([mailbox], "me.0", 1, 10))
        else:
            assert box.flush(client)
        assert not box.waiting
        (published,) = published_in(client, mailbox)
        assert [result.sequence for result in published.results] == [1]


def test_a_withdrawn_message_has_no_result(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1)
    (entry,) = mailbox.receive(redis_client, "me.0", 1, None)
    mailbox.withdraw(redis_client, [entry.id])
    assert answer_to(redis_client, mailbox, "me.0", [entry]) == 0


def test_without_a_reply_stream_the_run_is_over(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1)
    entries = mailbox.receive(redis_client, "me.0", 1, None)
    redis_client.delete(keys.USUAL.reply(mailbox.run))
    assert answer_to(redis_client, mailbox, "me.0", entries) is None
    pending = redis_client.xpending(mailbox.stream, keys.GROUP)
    assert pending["pending"] == 1  # nothing was acknowledged for nothing


def test_a_refused_append_leaves_the_message_pending(private_redis: object) -> None:
    client = connect(private_redis.url)  # type: ignore[attr-defined]
    box = Mailbox("full", "node")
    box.make(client)
    client.xdel(keys.USUAL.reply("full"), client.xadd(keys.USUAL.reply("full"), {"n": ""}))
    send(client, box, 1)
    entries = box.receive(client, "me.0", 1, None)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)
    with pytest.raises(redis.ResponseError, match=r"OOM|maxmemory"):
        answer_to(client, box, "me.0", entries)
    client.config_set("maxmemory", 0)
    assert answer_to(client, box, "me.0", entries) == 1
    client.close()


def test_a_note_comes_only_while_its_message_is_worked_on(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1, 2)
    one, two = mailbox.receive(redis_client, "me.0", 9, None)

    def note(consumer: str, entry: Any) -> list[tuple[int, bytes]]:
        mailbox.note(redis_client, consumer, Answer(entry, NOTE, 0.0, 0.0, "", b""))
        found = published_in(redis_client, mailbox)
        return [(result.sequence, result.kind) for published in found for result in published.results]

    assert note("other.0", one) == []  # whose bell was lost, and whose message somebody else runs by now
    assert note("me.0", one) == [(1, NOTE)]
    answer_to(redis_client, mailbox, "me.0", [one, two])
    answered = [(1, NOTE), (1, RESULT), (2, RESULT)]
    assert note("me.0", two) == answered
    mailbox.note(redis_client, "me.0", Answer(two, NOTE, 0.0, 0.0, "", b""))
    redis_client.delete(mailbox.stream)
    assert note("me.0", one) == answered


@pytest.mark.parametrize("keyring", [None, Keyring([b"a"])], ids=["plain", "signed"])
def test_who_looks_what_is_there_gets_no_bodies(redis_client: Client, keyring: Keyring | None) -> None:
    box, body = box_of(keyring, secrets.token_hex(4), "node", redis_client), bytes(60_000)
    entries = [packed_entry(number, 1, "", body) for number in range(200)]
    ids = [each.decode() for each in call(redis_client, box.sending(entries, token="t", wanted=1, ttl=2000))[0]]
    assert waiting(redis_client, [box])[0] == dict(zip([(number, 1) for number in range(200)], ids, strict=True))
    assert all(len(raw) <= HEAD for _, (_, raw) in heads(redis_client, [box.stream])[0])
    call(redis_client, box.taking(0, "host.1.me.0"))
    for entry in box.receive(redis_client, "host.1.me.0", 200, None):
        box.publish(redis_client, "host.1.me.0", [Answer(entry, RESULT, 0.0, 0.0, "", body, console=body)])
    (found,) = heads(redis_client, [box.reply])
    assert sum(len(field) for _, fields in found for field in fields) < 200 * 100
    replies = [reply for item in found if (published := as_published(item)) for reply in published.results]
    assert [(reply.sequence, reply.attempt, reply.kind) for reply in replies] == [(n, 1, RESULT) for n in range(200)]
