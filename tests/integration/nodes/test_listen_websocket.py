"""json_websocket on a port of this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from celerypipe.message.payload import Object
from celerypipe.nodes.json_websocket import JsonWebsocket
from tests.runs.living import Reader, living

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


@contextmanager
def joined(source: JsonWebsocket, **arguments: Any) -> Iterator[Any]:
    with connect(f"ws://127.0.0.1:{source.port}", proxy=None, close_timeout=2, **arguments) as connection:
        yield connection


def test_text_and_binary_messages_become_messages():
    with living(JsonWebsocket(rtx_port="auto")) as source, joined(source) as connection:
        reader = Reader(source)
        connection.send('{"n": 1, "text": "héllo"}')
        connection.send(b'{"n": 2}')
        messages = [reader.next(), reader.next()]
        assert [message.payload for message in messages] == [{"n": 1, "text": "héllo"}, {"n": 2}]
        assert [message.version for message in messages] == [0, 1]
        assert isinstance(messages[0].payload, Object)


@pytest.mark.parametrize(
    ("bad", "said"),
    [('{"a":', "not JSON"), (b"\xff\xfe", "not JSON"), ("[" * 100_000, "not JSON"), ("[1]", "not list")],
)
def test_bad_json_is_answered_and_counted_and_the_connection_stays(bad, said):
    with living(JsonWebsocket(rtx_port="auto")) as source, joined(source) as connection:
        connection.send(bad)
        assert said in json.loads(connection.recv(timeout=10))["error"]
        connection.send('{"good": 1}')
        assert Reader(source).next().payload == {"good": 1}
        assert source.refused == 1


def test_a_message_over_the_limit_closes_only_its_own_connection():
    with (
        living(JsonWebsocket(rtx_port="auto", max_bytes=1000)) as source,
        joined(source) as large,
        joined(source) as small,
    ):
        large.send(json.dumps({"text": "x" * 2000}))
        with pytest.raises(ConnectionClosed) as closed:
            large.recv(timeout=10)
        assert closed.value.rcvd.code == 1009
        small.send("{}")
        assert Reader(source).next().payload == {}


def test_a_full_inbox_holds_the_connection_until_there_is_room():
    with living(JsonWebsocket(rtx_port="auto", capacity=1, limit=50)) as source, joined(source) as connection:
        sender = threading.Thread(target=lambda: [connection.send(json.dumps({"n": n})) for n in range(50)])
        sender.start()
        received = []
        for message in source.messages():
            assert source.inbox.taken <= len(received) + 2
            received.append(message.payload.n)
        assert received == list(range(50))
        sender.join(timeout=10)


def test_stop_hands_over_what_was_taken_and_frees_who_waits_for_room():
    with living(JsonWebsocket(rtx_port="auto", capacity=1)) as source, joined(source) as connection:
        connection.send('{"n": 1}')
        connection.send('{"n": 2}')
        messages = source.messages()
        assert next(messages).payload.n == 1
        source.stop()
        assert [message.payload.n for message in messages] in ([], [2])
        connection.send('{"n": 3}')
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=10)
        assert closed.value.rcvd.code == 1001


def test_a_web_page_may_only_connect_when_its_origin_is_listed():
    page = {"origin": "https://example.org"}
    with living(JsonWebsocket(rtx_port="auto")) as source, pytest.raises(InvalidStatus), joined(source, **page):
        pass
    for origins in (["https://example.org"], ["*"]):
        with living(JsonWebsocket(rtx_port="auto", origins=origins)) as source, joined(source, **page) as connection:
            connection.send("{}")
            assert Reader(source).next().payload == {}
