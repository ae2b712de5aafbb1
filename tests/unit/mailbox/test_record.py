"""The record of a node: exact when it comes back, and refused where no runner wrote it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from celerypipe import CodecError, codec
from celerypipe.mailbox.protocol import SPOKEN
from celerypipe.mailbox.record import Record

#: What is told of a node, and how it is told.
RECORD: dict[str, Any] = {
    "mark": "tasks.gpu.Detect",
    "configuration": {"model": (1, np.float32(2)), "nan": float("nan")},
    "timeout": 1,
    "linger": 0.5,
    "slice": 0.2,
    "term": 10,
    "room": 64,
    "budget": 1 << 20,
    "neighbours": ("a", "b"),
}

SAID = {"protocol": list(SPOKEN), **RECORD}


def test_a_record_comes_back_as_exact_as_it_went() -> None:
    record = Record.read(codec.encode_value(SAID))
    assert (record.configuration["model"], type(record.configuration["model"][1])) == ((1, 2), np.float32)
    assert (record.timeout, record.neighbours, type(record.timeout)) == (1, ("a", "b"), int)


@pytest.mark.parametrize(
    "change",
    [
        {"linger": "soon"},
        {"mark": None},
        {"room": 1.5},
        {"neighbours": [1]},
        {"configuration": []},
        {"configuration": {1: 2}},
        {"unknown": 1},
        {"batch": None},
        {"protocol": [99, 99]},
        {"protocol": None},
    ],
)
def test_a_record_that_no_runner_wrote_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="no record of a node"):
        Record.read(codec.encode_value({**SAID, **change}))
    for value in (None, [], 5, {}, "record", {"configuration": {}}):
        with pytest.raises(CodecError, match="no record of a node"):
            Record.read(codec.encode_value(value))


def test_its_key_is_exact_and_made_once() -> None:
    zeros, seven = np.zeros(2000), np.zeros(2000)
    seven[1000] = 7

    def record(**values: Any) -> Record:
        return Record(**{**RECORD, **values})

    records = [record(configuration={"mask": zeros}), record(configuration={"mask": seven}), record(configuration={})]
    records += [record(configuration=None), record(configuration={}, pinned=True), record(configuration={}, mark="m")]
    assert len({each.key for each in records}) == len(records)
    assert record(configuration={"a": 1, "b": 2}).key == record(configuration={"b": 2, "a": 1}).key
    assert record(timeout=5, batch=2, neighbours=()).key == record().key, "how it is served makes no other instance"
    for each in records:
        assert Record.read(each.write()).key == each.key
    assert Record.read(record(digest="made by the runner").write()).digest == "made by the runner"
