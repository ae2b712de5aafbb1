"""The shelf of warm instances: who is lent which, and how many are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from celerypipe import Message, Proc
from celerypipe.catalogue.catalogue import Listing
from celerypipe.mailbox.record import Record
from celerypipe.message.message import new_id
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.worker.activation import shelf as module
from celerypipe.worker.activation.deadman import DeadMan
from celerypipe.worker.activation.shelf import Bounds, Shelf
from tests.servers import eventually


class Mask(Proc):
    """Keeps what it was made with."""

    def __init__(self, mask: Any = None) -> None:
        self.mask = mask

    def update(self, message: Message) -> Message:
        return message


class Later(Mask):
    """What its module was loaded anew with."""


def record(**values: Any) -> Record:
    limits: dict[str, Any] = {"timeout": None, "linger": 0.5, "slice": 0.2, "term": 10.0, "room": 64, "budget": 1}
    return Record(**{"mark": "tasks.x.Mask", "configuration": {}, **limits, **values})


def test_an_instance_is_lent_only_to_the_same_class_and_configuration() -> None:
    shelf, listing = Shelf(9, DeadMan(None)), Listing("tasks.x.Mask", Mask, "import")
    zeros, seven = np.zeros(2000), np.zeros(2000)
    seven[1000] = 7
    one = shelf.lend(listing, record(configuration={"mask": zeros}))
    one.warm()
    one.mean = 0.5
    shelf.give_back(record(configuration={"mask": zeros}), one)
    later = Listing("tasks.x.Mask", Later, "import")
    for wanted, other in [
        (listing, record(configuration={"mask": seven})),
        (listing, record(configuration=None)),
        (listing, record(mark="tasks.y.Mask", configuration={"mask": zeros})),
        (listing, record(configuration={"mask": zeros}, pinned=True)),
        (later, record(configuration={"mask": zeros})),
    ]:
        assert shelf.lend(wanted, other) is not one
    equal = record(configuration={"mask": zeros.copy()}, timeout=3.0)
    assert shelf.mean(equal) == 0.5
    assert shelf.mean(record(configuration={"mask": seven})) is None
    assert shelf.lend(listing, equal) is one
    assert shelf.lend(listing, equal) is not one, "it is lent to one at a time"


class Nodes:
    """A shelf of one slot with the nodes of a run that has three on this worker, and the marks of those it let go."""

    def __init__(self, client: Client) -> None:
        self.shelf, self.client, self.wide = Shelf(1, DeadMan(None)), client, new_id()
        client.set(keys.USUAL.run(self.wide), "running", px=60_000)
        self.shelf.make_room(self.wide, 3)
        for name in "abc":
            self.use(name)

    def use(self, name: str) -> None:
        known = record(mark=name)
        self.shelf.give_back(known, self.shelf.lend(Listing(name, Mask, "import"), known))

    def gone(self, run: str = "") -> list[str]:
        return [each.listing.mark for each in self.shelf.look(self.client, run)]

    @property
    def kept(self) -> list[str]:
        return [each.instance.listing.mark for each in self.shelf._idle.values()]


def test_a_run_with_many_nodes_has_room_for_them_as_long_as_it_lives(redis_client: Client) -> None:
    nodes = Nodes(redis_client)
    assert nodes.gone("another") == []
    nodes.shelf.make_room("another", 1)
    nodes.use("d")
    assert nodes.kept == ["b", "c", "d"], "the one that nobody used for longest went"
    redis_client.set(keys.USUAL.run(nodes.wide), "finished", px=60_000)
    assert nodes.gone(nodes.wide) == [], "its own end it hears elsewhere"
    assert nodes.gone("another") == ["b", "c"]
    nodes.use("e")
    assert nodes.kept == ["e"]


def test_who_is_idle_for_too_long_goes_but_not_what_was_to_be_warm_from_the_start(redis_client: Client) -> None:
    shelf = Shelf(2, DeadMan(None), Bounds(seconds=0.0))
    shelf.preload(Listing("first", Mask, "import"), record(mark="first").key, {})
    for name in ("first", "second"):
        known = record(mark=name)
        shelf.give_back(known, shelf.lend(Listing(name, Mask, "import"), known))
    assert [each.listing.mark for each in shelf.look(redis_client)] == ["second"]
    assert shelf.look(redis_client) == []
    assert shelf.mean(record(mark="first")) is None
    assert shelf.lend(Listing("first", Mask, "import"), record(mark="first")).node is not None


def test_of_a_process_that_takes_too_much_one_goes_after_another_but_the_last(redis_client: Client) -> None:
    taken = 100
    shelf = Shelf(3, DeadMan(None), Bounds(memory=100), lambda: taken)
    for name in "abc":
        known = record(mark=name)
        shelf.give_back(known, shelf.lend(Listing(name, Mask, "import"), known))
    assert shelf.look(redis_client) == []
    taken = 101
    gone = [[each.listing.mark for each in shelf.look(redis_client)] for _ in range(3)]
    assert gone == [["a"], ["b"], []]


def test_a_run_that_gives_a_process_nothing_to_do_has_no_room_there(
    redis_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes(redis_client)
    nodes.shelf.clear_up(redis_client)
    assert nodes.kept == ["a", "b", "c"]
    monkeypatch.setattr(module, "LEFT_ALONE", -1.0)
    nodes.shelf.clear_up(redis_client)
    eventually(lambda: nodes.kept == ["c"], "the others to go")
