"""The shelf of warm instances: who is lent which."""

from __future__ import annotations

from typing import Any

import numpy as np

from celerypipe import Message, Proc
from celerypipe.catalogue.catalogue import Listing
from celerypipe.mailbox.record import Record
from celerypipe.worker.activation.deadman import DeadMan
from celerypipe.worker.activation.shelf import Shelf


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
