"""A message is frozen, changes by copy, and knows its JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import multiprocessing
import time
from typing import Any

import numpy as np
import pytest

from celerypipe import Array, Audio, Batch, Bytes, Image, Message, Object
from celerypipe.message.message import new_id


def test_a_message_cannot_be_changed() -> None:
    message = Message(1)
    for field in dataclasses.fields(Message):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(message, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        message.anything = 1  # type: ignore[attr-defined]


def test_a_copy_keeps_where_it_comes_from_and_gets_an_id_of_its_own() -> None:
    first = Message(1, {"k": 1}, "node", 4, {"t": 0.5}, origin="source-1", sequence=7, created_at=3.0)
    before = time.time()
    second = first.with_payload("new")
    assert (second.payload, second.meta, second.creator, second.version) == ("new", {"k": 1}, "node", 4)
    assert (second.origin, second.sequence, second.timers) == ("source-1", 7, {"t": 0.5})
    assert second.id != first.id
    assert second.created_at >= before
    assert (first.payload, first.created_at) == (1, 3.0)


def test_meta_is_added_to_and_replaced_in_a_copy_only() -> None:
    first = Message(1, {"a": 1, "b": 1})
    second = first.with_meta(b=2, c=3)
    assert second.meta == {"a": 1, "b": 2, "c": 3}
    assert first.meta == {"a": 1, "b": 1}


def test_a_given_id_and_time_stay() -> None:
    message = Message(1).with_changes(id="mine", created_at=5.0, creator="node")
    assert (message.id, message.created_at, message.creator) == ("mine", 5.0, "node")


def test_timeit_notes_the_seconds_also_when_the_block_raises() -> None:
    message = Message(1)
    with message.timeit("fine"):
        pass
    with pytest.raises(ZeroDivisionError), message.timeit("broken"):
        _ = 1 / 0
    assert message.timers.keys() == {"fine", "broken"}
    assert all(0 <= seconds < 60 for seconds in message.timers.values())


def test_the_timers_of_a_copy_are_its_own() -> None:
    first = Message(1)
    with first.timeit("early"):
        second = first.with_payload(2)
    assert first.timers.keys() == {"early"}
    assert second.timers == {}
    with second.timeit("late"):
        pass
    assert first.timers.keys() == {"early"}
    assert second.with_payload(3).timers.keys() == {"late"}


def test_two_messages_are_equal_only_when_they_are_the_same_one() -> None:
    message = Message(np.zeros(3))
    assert message == message  # with the arrays inside compared, this would raise
    assert Message(1, id="x", created_at=1.0) != Message(1, id="x", created_at=1.0)
    assert len({message, Message(1)}) == 2


def _ids(count: int, answers: Any) -> None:
    answers.put([new_id() for _ in range(count)])


def test_ids_are_unique_within_a_process_and_between_forks() -> None:
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    children = [fork.Process(target=_ids, args=(100, answers)) for _ in range(3)]
    for child in children:
        child.start()
    ids = [new_id() for _ in range(100)]
    for _ in children:
        ids += answers.get(timeout=30)
    for child in children:
        child.join(30)
    assert len(set(ids)) == 400


def test_a_message_is_json_whatever_it_carries() -> None:
    payload = {
        "array": np.arange(4, dtype="u1").reshape(2, 2),
        "scalar": np.float32(0.5),
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"a"),
        "tuple": (1, None, True),
        "set": {3},
        5: "a key that is no str",
        "nan": math.nan,
        "infinite": [-math.inf, np.float64(math.inf)],
        "object": Object(text="è"),
        "date": datetime.date(2026, 11, 21),
        "image": Image(np.zeros((1, 2), "u1"), 2, 1),
        "audio": Audio(np.zeros(1)),
        "payload bytes": Bytes(b"abc"),
        "payload array": Array(np.array(["2026-01-01"], "M8[D]")),
        "batch": Batch((Message(1, id="inner", created_at=0.0), 2)),
        "message": Message(1, id="inner", created_at=0.0),
        "no bytes": Bytes("abc"),  # type: ignore[arg-type]  # a mistake, and no reason to fail
        "long": 1 << 20_000,
    }
    version: Any = np.int64(2)
    message = Message(payload, {"k": (1,)}, "node", version, {"t": np.float32(0.5)}, "source-1", 3, "the id", 1.5)
    back = json.loads(message.to_json())
    assert {name: value for name, value in back.items() if name != "payload"} == {
        "id": "the id",
        "created_at": 1.5,
        "creator": "node",
        "version": 2,
        "origin": "source-1",
        "sequence": 3,
        "meta": {"k": [1]},
        "timers": {"t": 0.5},
    }
    inner = back["payload"].pop("batch")
    assert inner == [back["payload"].pop("message"), 2]
    assert inner[0]["id"] == "inner"
    assert back["payload"] == {
        "array": [[0, 1], [2, 3]],
        "scalar": 0.5,
        "bytes": "AP8=",
        "bytearray": "YQ==",
        "tuple": [1, None, True],
        "set": [3],
        "5": "a key that is no str",
        "nan": None,
        "infinite": [None, None],
        "object": {"text": "è"},
        "date": "2026-11-21",
        "image": {"image": [[0, 0]], "width": 2, "height": 1, "depth": -1, "pixel_format": "", "timestamp": -1.0},
        "audio": {"audio": [0.0], "sampling_rate": -1, "audio_format": "", "channels": -1, "start": -1.0, "end": -1.0},
        "payload bytes": {"cnt": "YWJj"},
        "no bytes": {"cnt": "abc"},
        "long": f"0x1{5000 * '0'}",
        "payload array": {"array": ["2026-01-01"]},
    }
    assert "è" in message.to_json(indent=2)
