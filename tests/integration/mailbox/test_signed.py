"""The protocol with keys, against a real Redis: each thing that somebody tampers with is refused and goes away."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from celerypipe.errors import BadSignature
from celerypipe.mailbox.mailbox import Mailbox, waiting
from celerypipe.mailbox.wire import NOTE, REFUSED, RESULT, Answer, Entry, Published, as_published, packed_entry
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.script import call
from celerypipe.redis.signing import SIGNATURE, Keyring
from tests.runs.mailbox import box_of

ME = "host.1.me.0"


@pytest.fixture
def keyring() -> Keyring:
    return Keyring([secrets.token_bytes(16)])


@pytest.fixture
def mailbox(redis_client: Client, keyring: Keyring) -> Mailbox:
    """A mailbox of a run of its own, whose messages are signed."""
    return box_of(keyring, secrets.token_hex(4), "node", redis_client)


def send(client: Client, box: Mailbox, *numbers: int) -> None:
    entries = [packed_entry(number, 0, "", b"%d" % number) for number in numbers]
    assert call(client, box.sending(entries, token="t", wanted=1, ttl=2000)) is not None


def raw_of(client: Client, box: Mailbox, place: int = 0) -> bytes:
    """A message as it stands in its mailbox."""
    raw: bytes = client.xrange(box.stream)[place][1][b"m"]
    return raw


def signers(box: Mailbox) -> Callable:
    return lambda node: box.beside(node).signer("result")


def replies(client: Client, box: Mailbox) -> list[Published]:
    found = [as_published(item, signers(box)) for item in client.call("XRANGE", keys.USUAL.reply(box.run), "-", "+")]
    return [published for published in found if published is not None]


def test_what_was_signed_arrives(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1, 2)
    call(redis_client, mailbox.taking(0, ME))
    entries = mailbox.receive(redis_client, ME, 10, None)
    assert [(entry.sequence, entry.data) for entry in entries] == [(1, b"1"), (2, b"2")]
    assert waiting(redis_client, [mailbox])[0].keys() == {(1, 0), (2, 0)}
    mailbox.note(redis_client, ME, Answer(entries[0], NOTE, 0.0, 0.0, "", b"", onward=b"steps"))
    mailbox.publish(redis_client, ME, [Answer(e, RESULT, 0.5, 0.25, "blob", e.data, onward=b"on") for e in entries])
    (note, published) = replies(redis_client, mailbox)
    assert (note.results[0].kind, note.results[0].onward) == (NOTE, b"steps")
    assert (published.node, published.worker, published.refused) == ("node", ME, 0)
    said = [(each.sequence, each.waited, each.blob, each.data, each.onward) for each in published.results]
    assert said == [(1, 0.5, "blob", b"1", b"on"), (2, 0.5, "blob", b"2", b"on")]


def test_delivery_again_within_its_run_is_normal(redis_client: Client, mailbox: Mailbox) -> None:
    send(redis_client, mailbox, 1)
    redis_client.xadd(mailbox.stream, {"m": raw_of(redis_client, mailbox)})
    call(redis_client, mailbox.taking(0, ME))
    assert [entry.sequence for entry in mailbox.receive(redis_client, ME, 10, None)] == [1, 1]


def unsigned(raw: bytes) -> bytes:
    return raw[:-SIGNATURE]


def with_other_content(raw: bytes) -> bytes:
    return raw[: -SIGNATURE - 1] + b"9" + raw[-SIGNATURE:]


def with_other_number(raw: bytes) -> bytes:
    return packed_entry(7, 0, "", b"1") + raw[-SIGNATURE:]


def with_other_attempt(raw: bytes) -> bytes:
    return packed_entry(1, 1, "", b"1") + raw[-SIGNATURE:]


def with_a_blob(raw: bytes) -> bytes:
    return packed_entry(1, 0, "1", b"") + raw[-SIGNATURE:]


TAMPERINGS = [unsigned, with_other_content, with_other_number, with_other_attempt, with_a_blob]


@pytest.mark.parametrize("tamper", TAMPERINGS)
@pytest.mark.parametrize("way", ["receive", "begin", "claim"])
def test_a_message_that_was_tampered_with_is_refused_and_taken_away(
    redis_client: Client, mailbox: Mailbox, tamper: Callable[[bytes], bytes], way: str
) -> None:
    send(redis_client, mailbox, 1, 2)
    raw = tamper(raw_of(redis_client, mailbox))
    redis_client.xdel(mailbox.stream, redis_client.xrange(mailbox.stream)[0][0])
    redis_client.xadd(mailbox.stream, {"m": raw})
    redis_client.xadd(mailbox.stream, {"rubbish": "of another program"})
    assert [entry.sequence for entry in read(redis_client, mailbox, way)] == [2]
    assert redis_client.xlen(mailbox.stream) == 1
    assert redis_client.xpending(mailbox.stream, keys.GROUP)["pending"] == 1
    assert mailbox.keyring is not None
    assert mailbox.keyring.refusals.counts == {"message": 2}
    (published,) = replies(redis_client, mailbox)  # and the runner hears of it
    assert [(each.kind, each.data) for each in published.results] == [(REFUSED, b"2 message")]


def read(client: Client, box: Mailbox, way: str) -> list[Entry]:
    """Read all there is, as an activation reads what is new, begins, or takes over what a dead one held."""
    if way == "begin":
        began = box.begin(client, 0, ME, most=10, first=10)
        assert began is not None
        assert began.claimed == []
        # Without a record a beginning brings nothing along.
        client.set(keys.USUAL.node(box.run, box.node), "record", px=keys.DATA_TTL)
        began = box.begin(client, 0, ME, most=10, first=10)
        assert began is not None
        return began.first
    if way == "claim":
        call(client, box.taking(0, "host.1.dead.0"))
        client.xreadgroup(keys.GROUP, "host.1.dead.0", {box.stream: ">"}, count=10)
        client.delete(f"{box.bell}0")
    call(client, box.taking(0, ME))
    return box.claim(client, ME, 10) if way == "claim" else box.receive(client, ME, 10, None)


@pytest.mark.parametrize(("run", "node"), [("another", "node"), ("", "another")])
def test_a_message_that_was_moved_is_refused(
    redis_client: Client, mailbox: Mailbox, keyring: Keyring, run: str, node: str
) -> None:
    send(redis_client, mailbox, 1)
    other = box_of(keyring, secrets.token_hex(4) if run else mailbox.run, node, redis_client)
    redis_client.xadd(other.stream, {"m": raw_of(redis_client, mailbox)})
    call(redis_client, other.taking(0, ME))
    assert other.receive(redis_client, ME, 10, None) == []
    assert keyring.refusals.counts == {"message": 1}


@pytest.mark.parametrize(
    ("field", "place", "value"),
    [("n", 1, b"another"), ("w", 3, b"host.2.thief.0"), ("r", 5, b"")],
    ids=["moved to another node", "said to be of another worker", "altered"],
)
def test_a_result_that_was_tampered_with_is_refused(
    redis_client: Client, mailbox: Mailbox, field: str, place: int, value: bytes
) -> None:
    send(redis_client, mailbox, 1, 2)
    call(redis_client, mailbox.taking(0, ME))
    entries = mailbox.receive(redis_client, ME, 10, None)
    mailbox.publish(redis_client, ME, [Answer(entry, RESULT, 0.0, 0.0, "", entry.data) for entry in entries])
    ((entry_id, fields),) = redis_client.call("XRANGE", keys.USUAL.reply(mailbox.run), "-", "+")
    value = value or fields[place].replace(b"1", b"9")
    tampered = (entry_id, [*fields[:place], value, *fields[place + 1 :]])
    published = as_published(tampered, signers(mailbox))
    assert published is not None
    still = [1] if field == "r" else [0]  # the other result of the same reply is as it was
    assert [len(published.results), published.refused] == [*still, 2 - still[0]]


def test_results_nobody_signed_or_of_another_run_or_in_another_shape_are_refused(
    redis_client: Client, mailbox: Mailbox, keyring: Keyring
) -> None:
    send(redis_client, mailbox, 1)
    for other in (Mailbox(mailbox.run, mailbox.node), box_of(keyring, secrets.token_hex(4), "node", redis_client)):
        fake = [Answer(Entry("1-1", 1, 0, "", b""), kind, 0.0, 0.0, "", b"1") for kind in (RESULT, NOTE)]
        flat = other.publishing(ME, fake)[8:]
        fields = [b"n", b"node", b"w", ME.encode(), b"r", flat[1], b"r", flat[3]]
        published = as_published((b"1-1", fields), signers(mailbox))
        assert published is not None
        assert (published.results, published.refused) == ([], 2)
    for fields in ([b"x", b"y"], [b"n", b"\xff", b"w", b"", b"r", b""], [b"n"]):
        published = as_published((b"1-1", fields), signers(mailbox))
        assert published is not None
        assert (published.results, published.refused) == ([], 1)
    assert as_published((b"1-1", [b"n", b""]), signers(mailbox)) is None  # which runners write themselves


def test_a_record_is_signed_for_its_node_and_run(redis_client: Client, mailbox: Mailbox, keyring: Keyring) -> None:
    redis_client.call(*mailbox.writing_record(b"mark and configuration"))
    raw = redis_client.get(keys.USUAL.node(mailbox.run, mailbox.node))
    assert isinstance(raw, bytes)
    assert mailbox.read_record(raw) == b"mark and configuration"
    for other in (mailbox.beside("another"), Mailbox("another", mailbox.node, keyring)):
        with pytest.raises(BadSignature):
            other.read_record(raw)
    for tampered in (raw[:-SIGNATURE], b"x" + raw, raw.replace(b"mark", b"work"), b""):
        with pytest.raises(BadSignature):
            mailbox.read_record(tampered)


def test_without_keys_nothing_is_added(redis_client: Client) -> None:
    plain = box_of(None, secrets.token_hex(4), "node", redis_client)
    send(redis_client, plain, 1)
    assert raw_of(redis_client, plain) == packed_entry(1, 0, "", b"1")
    redis_client.call(*plain.writing_record(b"record"))
    assert redis_client.get(keys.USUAL.node(plain.run, "node")) == b"record"
    answer = Answer(Entry("1-1", 1, 0, "", b""), RESULT, 0.0, 0.0, "", b"")
    assert plain.publishing(ME, [answer])[-1] == answer.packed()
