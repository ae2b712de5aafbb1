"""What metrics are made of is read in as many round trips however much there is."""

from __future__ import annotations

import secrets

import pytest

from celerypipe.mailbox.blob.blob import Blobs, Store
from celerypipe.mailbox.counts import counting
from celerypipe.mailbox.record import Record
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, connect
from celerypipe.redis.script import call
from celerypipe.runner.carrier.holdings import Holdings
from celerypipe.web.overview import Load, read_overview


def test_many_queues_take_as_many_round_trips_as_one(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    ask = Client.ask

    def noted(client: Client, *commands: Command) -> None:
        if client.names == names:  # another test's run may still end
            asked.append(len(commands))
        ask(client, *commands)

    looks = []
    for size in (1, 20):
        names, queues = keys.Names(f"celerypipe@{secrets.token_hex(4)}"), [f"q{number}" for number in range(size)]
        with connect(redis_url) as client:
            client.names = names
            for queue in queues:
                run = secrets.token_hex(6)
                holdings = Holdings(run, Blobs(Store(run, names=names)))
                about = {"pipeline": "p", "host": "h", "pid": 1, "nodes": {"n": {"mark": "m", "queue": queue}}}
                holdings.plan({"n": Record("m", {}, None, 1.0, 1.0, 9.0, 64, 1 << 20)}, about)
                holdings.make(client)
                client.xadd(names.mailbox(run, "n"), {"m": ""})
                call(client, counting(names, run, 1, "p", {(queue, "n"): {"done": 1}}, last=True))
            with monkeypatch.context() as patch:
                asked.clear()
                patch.setattr(Client, "ask", noted)
                found = read_overview(client)
            looks.append(len(asked))
            client.delete(*client.keys(f"{names.prefix}:*"))
        assert list(found.queues) == sorted(queues)
        assert {(load.messages, load.in_flight, load.workers) for load in found.queues.values()} == {(1, 0, 0)}
        assert {each.outcomes["done"] for each in found.counted} == {1}
        assert found.of(["q0", "none"]).queues["none"] == Load()
    assert looks[0] == looks[1] <= 12
