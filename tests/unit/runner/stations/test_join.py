"""How several links become one input."""

from __future__ import annotations

import re

import pytest

from celerypipe.errors import NodeFailed
from celerypipe.message.message import Message
from celerypipe.message.payload import Image
from celerypipe.runner.stations.join import Unjoinable, join_of


def payloads(ready: object) -> list[tuple[object, ...]]:
    return [tuple(part.payload for part in message.payload.messages) for message in ready]  # type: ignore[attr-defined]


def test_passthrough_hands_over_every_message_by_itself() -> None:
    join = join_of(None, "both", ("a", "b"), 8)
    message = Message(1)
    assert list(join.put("a", message)) == [message]


def test_zip_waits_for_one_of_each_in_order() -> None:
    join = join_of("zip", "both", ("a", "b"), 8)
    assert payloads(join.put("b", Message(10))) == []
    assert payloads(join.put("b", Message(11))) == []
    assert payloads(join.put("a", Message(1))) == [(1, 10)]
    assert payloads(join.put("a", Message(2))) == [(2, 11)]
    assert join.left() == 0


def test_zip_of_uneven_links_says_which_link_is_behind() -> None:
    join = join_of("zip", "both", ("a", "b"), 2)
    join.put("a", Message(1))
    join.put("a", Message(2))
    with pytest.raises(NodeFailed, match=r"3 messages from 'a' wait and none came from 'b'.*key:"):
        join.put("a", Message(3))


def test_latest_pairs_the_newest() -> None:
    join = join_of("latest", "both", ("a", "b"), 8)
    assert payloads(join.put("a", Message(1))) == []
    assert payloads(join.put("b", Message(10))) == [(1, 10)]
    assert payloads(join.put("a", Message(2))) == [(2, 10)]


def test_key_pairs_by_a_meta_field_in_any_order_and_merges_meta() -> None:
    join = join_of("key:name", "both", ("a", "b"), 8)
    assert payloads(join.put("a", Message(1, meta={"name": "x", "left": 1}))) == []
    assert payloads(join.put("a", Message(2, meta={"name": "y"}))) == []
    assert payloads(join.put("b", Message(20, meta={"name": "y"}))) == [(2, 20)]
    (done,) = join.put("b", Message(10, meta={"name": "x", "right": 2}))
    assert done.meta == {"name": "x", "left": 1, "right": 2}
    assert join.left() == 0


def test_key_gives_up_the_oldest_that_found_no_partner() -> None:
    join = join_of("key:name", "both", ("a", "b"), 2)
    for number in range(3):
        join.put("a", Message(number, meta={"name": number}))
    assert join.unmatched == 1
    assert payloads(join.put("b", Message(20, meta={"name": 2}))) == [(2, 20)]
    assert payloads(join.put("b", Message(0, meta={"name": 0}))) == []


def test_key_gives_up_the_oldest_of_a_link_that_has_too_many_with_one_key() -> None:
    join = join_of("key:name", "both", ("a", "b"), 2)
    for number in range(1000):
        assert list(join.put("a", Message(number, meta={"name": "x"}))) == []
    assert (join.left(), join.unmatched) == (2, 998)
    (found,) = join.put("b", Message("b", meta={"name": "x"}))
    assert [part.payload for part in found.payload.messages] == [998, "b"]


def test_a_message_without_the_key_is_an_error_that_says_how_to_add_it() -> None:
    join = join_of("key:name", "both", ("a", "b"), 8)
    with pytest.raises(Unjoinable) as caught:
        join.put("a", Message(1, meta={"other": 1}))
    found = re.search(r"no usable meta field 'name'.*'other'.*with_meta\(name=\.\.\.\)", str(caught.value.error))
    assert found is not None
    for field, value in (("a b", 1), ("class", 1), ("self", 1), ("name", [1])):
        join = join_of(f"key:{field}", "both", ("a", "b"), 8)
        message = Message(1, meta={field: value} if value != 1 else {})
        with pytest.raises(Unjoinable) as caught:
            join.put("a", message)
        said = str(caught.value.error)
        if value == 1:
            code = said.rpartition("add it with ")[2].replace("...", "1")
            message = eval(code, {"message": message})  # noqa: S307  # the advice is ours
        else:
            assert said.endswith(": a list is no key; put a number, a text or a tuple of those there")
            message = message.with_meta(name=(1,))
        assert list(join.put("a", message)) == []


def test_within_pairs_by_time_and_drops_what_is_too_old() -> None:
    join = join_of("within:0.1", "both", ("a", "b"), 8)
    assert payloads(join.put("a", Message(Image(timestamp=1.0)))) == []
    assert payloads(join.put("a", Message(Image(timestamp=2.0)))) == []
    (pair,) = join.put("b", Message(Image(timestamp=2.05)))
    assert [part.payload.timestamp for part in pair.payload.messages] == [2.0, 2.05]
    assert join.unmatched == 1


def test_local_asks_the_node_which_messages_to_take() -> None:
    def next_batch(sources: dict[str, list[Message]]) -> dict[str, list[int]]:
        return {"a": [0, 1]} if len(sources.get("a", ())) == 2 else {}

    join = join_of(None, "both", ("a", "b"), 8, next_batch)
    assert payloads(join.put("a", Message(1))) == []
    assert payloads(join.put("b", Message(10))) == []
    assert payloads(join.put("a", Message(2))) == [(1, 2)]
    assert join.left() == 1


def test_local_with_one_message_is_that_message() -> None:
    join = join_of("local", "both", ("a", "b"), 8, lambda sources: {link: [0] for link in sources if sources[link]})
    message = Message(1)
    assert list(join.put("a", message)) == [message]


def test_local_may_count_from_the_end() -> None:
    join = join_of("local", "both", ("a", "b"), 8, lambda sources: {"a": [-1, 0]} if len(sources["a"]) == 2 else {})
    assert payloads(join.put("a", Message(1))) == []
    assert payloads(join.put("a", Message(2))) == [(1, 2)]
    assert join.left() == 0
