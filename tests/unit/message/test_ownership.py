"""Who may write into what a message holds: what a node sent stays as it was, what it is given is its own or fixed."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from celerypipe import Array, Audio, Batch, Bytes, CodecError, Image, Message, Object, Video
from celerypipe.message.ownership import as_sent, own, read_only, writable
from tests.unit.codec.equality import same

Point = namedtuple("Point", "x y")  # what code of users has, too

#: A way to a place of a payload, and the payload: whoever makes it may still have it.
Make = Callable[[], Any]
ARRAYS: dict[str, tuple[Make, Callable[[Any], Any]]] = {
    "array": (lambda: np.arange(6.0), lambda value: value),
    "fortran": (lambda: np.asfortranarray(np.ones((3, 4))), lambda value: value),
    "slice": (lambda: np.arange(9.0)[2:], lambda value: value),
    "records": (lambda: np.zeros(3, [("a", "i8"), ("b", "f4")]), lambda value: value),
    "over a bytearray": (lambda: np.frombuffer(bytearray(16), np.uint8), lambda value: value),
    "masked": (lambda: np.ma.array([1.0, 2.0], mask=[False, False]), lambda value: value),
    "Array": (lambda: Array(np.arange(6.0)), lambda value: value.array),
    "Audio": (lambda: Audio(np.zeros(6), 16000), lambda value: value.audio),
    "Image": (lambda: Image(np.zeros((2, 3)), 3, 2), lambda value: value.image),
    "Video": (lambda: Video((Image(np.zeros((2, 3))),)), lambda value: value.video[0].image),
    "Batch": (lambda: Batch((Message(np.zeros(3)),)), lambda value: value.messages[0].payload),
    "Object": (lambda: Object(at=np.zeros(3)), lambda value: value.at),
    "list": (lambda: [1, [np.zeros(3)]], lambda value: value[1][0]),
    "tuple": (lambda: (1, (np.zeros(3),)), lambda value: value[1][0]),
    "named tuple": (lambda: Point(1, np.zeros(3)), lambda value: value.y),
    "dict": (lambda: {"a": {"b": np.zeros(3)}}, lambda value: value["a"]["b"]),
    "OrderedDict": (lambda: OrderedDict(a=np.zeros(3)), lambda value: value["a"]),
}
CHANGES: dict[str, tuple[Make, Callable[[Any], object]]] = {
    "list": (lambda: [1, 2], lambda value: value.append(3)),
    "list in a list": (lambda: [[1], 2], lambda value: value[0].append(3)),
    "list of records": (lambda: [{"a": 1}, {"a": 2}], lambda value: value[1].update(a=3)),
    "list of records with lists": (lambda: [{"a": [1]}, {"a": [2]}], lambda value: value[1]["a"].append(3)),
    "dict": (lambda: {"a": 1}, lambda value: value.update(a=2)),
    "list in a dict": (lambda: {"a": [1]}, lambda value: value["a"].append(2)),
    "list in an Object": (lambda: Object(a=[1]), lambda value: value.a.append(2)),
    "list in a tuple": (lambda: (1, [2]), lambda value: value[1].append(2)),
    "set": (lambda: {1}, lambda value: value.add(2)),
    "bytearray": (lambda: bytearray(b"ab"), lambda value: value.extend(b"c")),
    "bytearray in Bytes": (lambda: Bytes(bytearray(b"ab")), lambda value: value.cnt.extend(b"c")),  # type: ignore[arg-type]
    "record": (lambda: np.zeros(1, [("a", "i8")])[0], lambda value: value.__setitem__("a", 1)),
    "Counter": (lambda: Counter("ab"), lambda value: value.update("a")),
    "defaultdict": (lambda: defaultdict(list, a=[1]), lambda value: value["a"].append(2)),
    "meta of a Batch": (
        lambda: Batch((Message(1, {"a": [1]}, id="a", created_at=1.0),)),
        lambda value: value.messages[0].meta["a"].pop(),
    ),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_that_is_kept_by_who_sent_it_is_copied_and_read_only(kind: str) -> None:
    make, find = ARRAYS[kind]
    payload = make()
    sent = as_sent(Message(payload, meta={"too": payload}))
    before = copy.deepcopy(find(payload))
    find(payload)[...] = np.ones(1, find(payload).dtype)[0]
    for held in (find(sent.payload), find(sent.meta["too"])):
        assert same(np.asarray(held), np.asarray(before))
        assert find(payload).flags.writeable, "that of whoever sent it is left alone"
        with pytest.raises(ValueError, match="read-only"):
            held[...] = np.zeros(1, held.dtype)[0]
        if kind != "masked":  # numpy lets those be made writable, whatever is under them
            with pytest.raises(ValueError, match="WRITEABLE"):
                held.flags.writeable = True


@pytest.mark.parametrize("kind", [kind for kind in ARRAYS if kind not in ("over a bytearray", "masked")])
def test_an_array_that_nobody_kept_is_not_copied(kind: str) -> None:
    make, find = ARRAYS[kind]
    made = [Message(make())]
    address = find(made[0].payload).ctypes.data
    sent = find(as_sent(made.pop()).payload)
    assert sent.ctypes.data == address
    with pytest.raises(ValueError, match="WRITEABLE"):
        sent.flags.writeable = True


@pytest.mark.parametrize("who", ["message", "payload", "slice", "whole"])
def test_whoever_has_any_of_it_keeps_it(who: str) -> None:
    whole = np.zeros(8)
    part = whole[2:6]
    payload = Image(part[:])
    message = Message(payload)
    kept = {"message": message, "payload": payload, "slice": part, "whole": whole}[who]
    del whole, part, payload
    made = [message]
    del message
    sent = as_sent(made.pop()).payload.image
    array = kept.payload.image if isinstance(kept, Message) else kept.image if isinstance(kept, Image) else kept
    array[...] = 1
    assert sent.sum() == 0


def test_only_what_is_kept_is_copied() -> None:
    kept = np.zeros(3)
    made = [Message([kept, np.zeros(4), kept[1:]])]
    address = made[0].payload[1].ctypes.data
    first, second, third = as_sent(made.pop()).payload
    kept[...] = 1
    assert (first.sum(), third.sum(), second.ctypes.data) == (0, 0, address)


def test_a_read_only_view_of_what_somebody_writes_is_copied_and_what_nobody_can_write_is_not() -> None:
    buffer = np.zeros(3)
    view, fixed = np.broadcast_to(buffer, (2, 3)), np.frombuffer(bytes(8), np.uint8)
    sent = as_sent(Message((view, fixed))).payload
    buffer[...] = 1
    assert (sent[0].sum(), sent[1].ctypes.data) == (0, fixed.ctypes.data)


@pytest.mark.parametrize("kind", CHANGES)
def test_what_is_kept_and_changed_changes_nothing_that_was_sent_or_given(kind: str) -> None:
    make, change = CHANGES[kind]
    kept = make()
    sent = as_sent(Message(kept, meta={"too": kept}))
    change(kept)
    given = [own(sent), own(sent), writable(sent)]
    for message in given:
        change(message.payload)
        change(message.meta["too"])
        message.timers["t"] = 1.0
    assert same(sent.payload, make())
    assert same(sent.meta["too"], make())
    assert sent.timers == {}


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_branch_has_views_of_its_own_and_one_that_writes_has_arrays_of_its_own(kind: str) -> None:
    make, find = ARRAYS[kind]
    sent = as_sent(Message(make()))
    branch, mine = own(sent), writable(sent)
    find(mine.payload)[...] = np.ones(1, find(mine.payload).dtype)[0]
    assert same(np.asarray(find(branch.payload)), np.asarray(find(make())))
    assert find(branch.payload).ctypes.data == find(sent.payload).ctypes.data
    assert not find(branch.payload).flags.writeable
    find(branch.payload).shape = (-1, *find(branch.payload).shape)
    assert find(sent.payload).shape == find(make()).shape
    assert (branch.id, branch.created_at) == (sent.id, sent.created_at)


def test_a_meta_that_cannot_be_written_arrives_as_a_dict_as_it_does_on_a_worker() -> None:
    notes = {"a": [1]}
    sent = as_sent(Message(1, meta=MappingProxyType(notes)))
    notes["a"].append(2)
    assert (type(sent.meta), sent.meta) == (dict, {"a": [1]})


def test_a_configuration_is_read_only_and_stays_writable_to_who_wrote_it() -> None:
    table = np.zeros(3)
    given = read_only({"table": table, "names": ["a"]})
    given["names"].append("b")
    assert (given["table"].flags.writeable, table.flags.writeable) == (False, True)


def test_other_objects_go_as_they_are() -> None:
    class Session:
        pass

    session = Session()
    assert as_sent(Message({"session": session})).payload["session"] is session


def test_what_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(CodecError, match="nested too deep, or holds itself; flatten it"):
        as_sent(Message(circle))
