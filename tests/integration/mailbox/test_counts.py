"""What runs add to the counters of a queue: each batch once, and never more than there is room for."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from celerypipe.mailbox.counts import OTHERS, Counted, bucket, counting, read_counts
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.script import call


@pytest.fixture
def client(redis_client: Client) -> Iterator[Client]:
    """A client in a namespace of its own."""
    redis_client.names = keys.Names(f"celerypipe@{secrets.token_hex(4)}")
    yield redis_client
    del redis_client.names


def add(
    client: Client, run: str, batch: int, *, pipeline: str = "p", node: str = "n", queue: str = "q", done: int = 1
) -> int:
    """Add a batch, and return whether it counted."""
    amounts = {(queue, node): {"done": done, "run": 1_500_000, "run 3.0": done}}
    added: int = call(client, counting(client.names, run, batch, pipeline, amounts, last=False))
    return added


def test_a_batch_counts_once_however_often_it_is_sent(client: Client) -> None:
    assert [add(client, "a", 1), add(client, "a", 1), add(client, "b", 1), add(client, "a", 2)] == [1, 0, 1, 1]
    queues, (found,) = read_counts(client)
    assert (queues, found.outcomes, found.spent, found.buckets) == (
        ["q"],
        {"done": 3},
        {"run": 4.5},
        {"run": {"3.0": 3}},
    )
    lives = {name: client.pttl(name) for name in (client.names.counted, client.names.counts("q"))}
    assert all(keys.COUNTS_TTL - 60_000 < left <= keys.COUNTS_TTL for left in lives.values()), lives
    assert 0 < client.pttl(client.names.batch("a")) <= keys.BATCH_TTL


def test_what_a_hash_has_no_room_for_is_counted_as_others(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "COUNTS_MOST", 3)
    for number, node in enumerate(["first", "second", "third", "first"]):
        assert add(client, "a", number + 1, node=node) == 1
    _, found = read_counts(client)
    assert {(each.node, each.outcomes["done"]) for each in found} == {("first", 2), (OTHERS, 2)}


def test_names_come_back_as_they_were_and_what_a_stranger_wrote_is_passed_over(client: Client) -> None:
    name = 'a "name" ] [ \\ — ü'
    add(client, "a", 1, pipeline=name, node=name, queue=name)
    client.hset(
        client.names.counts(name), mapping={"done": 5, 'done["p"]': 5, 'else["p","n"]': 5, 'done["p","m"]': "x"}
    )
    assert [each for each in read_counts(client)[1] if each.outcomes] == [
        Counted(name, name, name, {"done": 1}, 0, {"run": 1.5}, {"run": {"3.0": 1}})  # type: ignore[arg-type]
    ]


def test_a_time_falls_into_the_bucket_whose_upper_end_is_not_below_it() -> None:
    assert [bucket(seconds) for seconds in (0.0, 0.001, 0.0011, 600.0, 601.0)] == [
        "0.001",
        "0.001",
        "0.003",
        "600.0",
        "+Inf",
    ]
