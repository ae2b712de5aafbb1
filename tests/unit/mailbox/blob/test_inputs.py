"""Results among the arguments of a call: to their places and back, and what a stranger may have written there."""

from __future__ import annotations

from typing import Any

import pytest

from celerypipe import CodecError, Message, codec
from celerypipe.catalogue.called import CalledFunction, called
from celerypipe.errors import ConfigError, NodeFailed
from celerypipe.mailbox.blob.blob import Store
from celerypipe.mailbox.blob.inputs import Input, as_payload, placed, with_inputs
from celerypipe.mailbox.protocol import SPOKEN
from celerypipe.mailbox.record import Record
from celerypipe.redis.connection import connect
from celerypipe.runner.functions.call import split
from tests.nodes import called as functions
from tests.nodes.remote import Echo

NOWHERE = connect("unix:///nowhere")
STORE = Store("run")


def sealed(value: Any) -> bytes:
    return codec.encode_joined([Message(value)])


def test_values_come_to_their_places_and_all_else_stays() -> None:
    arguments = (([1, None, (2, None)], {"a": None, "b": 3}), {"named": None})
    found = placed(arguments, [((0, 0, 1), "x"), ((0, 0, 2, 1), "y"), ((0, 1, "a"), None), ((1, "named"), "z")])
    assert found == (([1, "x", (2, "y")], {"a": None, "b": 3}), {"named": "z"})
    assert arguments[0][0] == [1, None, (2, None)], "the original is not touched"


def test_a_call_without_inputs_is_what_it_is() -> None:
    message = Message(((1, 2), {"x": 3}))
    assert with_inputs(message, NOWHERE, STORE) is message
    assert as_payload(((), {}), []) == ((), {})


def test_small_inputs_need_nobody() -> None:
    inputs = [Input((0, 1), sealed((1, "x")), ""), Input((1, "n"), sealed(None), "")]
    message = Message(as_payload(((7, None), {"n": 0}), inputs))
    (arrived,) = codec.decode(codec.encode_joined([message]))
    assert with_inputs(arrived, NOWHERE, STORE).payload == ((7, (1, "x")), {"n": None})
    assert with_inputs(arrived, NOWHERE, STORE).id == message.id


MALFORMED = [
    ((0, 5), sealed(1), ""),
    ((0, "x"), sealed(1), ""),
    ((2, 0), sealed(1), ""),
    ((0, 0, 0), sealed(1), ""),
    (([], 0), sealed(1), ""),
    ((), sealed(1), ""),
    ((0, 0), b"", ""),
    ((0, 0), b"cp garbage", ""),
    ((0, 0), codec.encode_joined([Message(1), Message(2)]), ""),
    ((0, 0), sealed(1), "no reference"),
    ("00", sealed(1), ""),
    ((0, 0), "text", ""),
    (1, 2),
    None,
]


@pytest.mark.parametrize("given", MALFORMED, ids=range(len(MALFORMED)))  # a repr would hold an id of its own
def test_what_a_stranger_wrote_is_a_codec_error_and_nothing_else(given: Any, redis_url: str) -> None:
    with connect(redis_url) as client:
        for inputs in ((given,), [given]):
            with pytest.raises(CodecError):
                with_inputs(Message(((1,), {}, inputs)), client, STORE)


def test_a_function_is_called_with_what_is_a_call_and_nothing_else() -> None:
    function = called("tests.nodes.called.add", functions.add.__node__)  # type: ignore[attr-defined]  # set by @node
    assert isinstance(function, CalledFunction)
    assert function.update(Message(((1,), {"other": 2}))).payload == 3  # type: ignore[union-attr]
    for payload in (None, 5, (1, 2), ((1,), {}, ()), ([1], {})):
        with pytest.raises(NodeFailed, match="is no call of a function"):
            function.update(Message(payload))


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (Echo, "is a class"),
        (functions.of_message.__node__, "takes a Message"),  # type: ignore[attr-defined]
        (functions.remembering.__node__, "is stateful"),  # type: ignore[attr-defined]
    ],
)
def test_what_is_no_such_function_is_refused_by_the_worker_too(node: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        called("mark", node)


def test_a_record_may_have_no_configuration_but_not_leave_it_out() -> None:
    fields = {"mark": "a.b", "configuration": None, "timeout": None, "linger": 0.5, "slice": 0.2, "term": 10.0}
    fields |= {"room": 64, "budget": 1000, "protocol": list(SPOKEN)}
    record = Record.read(codec.encode_value(fields))
    assert record.configuration is None
    assert record.key != Record.read(codec.encode_value({**fields, "configuration": {}})).key
    with pytest.raises(CodecError, match="it has no configuration"):
        Record.read(codec.encode_value({key: value for key, value in fields.items() if key != "configuration"}))


def test_lists_that_hold_one_another_are_left_to_the_codec() -> None:
    row: list[Any] = []
    row.append([row])
    assert split(((row,), {})) == (((row,), {}), ())
