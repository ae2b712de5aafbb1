"""notifier_websocket against a real server on this machine, and what both notifiers have in common."""

from __future__ import annotations

import json
import logging
import queue
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from websockets.frames import Opcode
from websockets.sync.server import ServerConnection, serve

from celerypipe.message.message import Message
from celerypipe.message.payload import Object
from celerypipe.nodes.notifier_http import NotifierHttp
from celerypipe.nodes.notifier_websocket import NotifierWebsocket
from tests.runs.living import living
from tests.servers.port import free_port

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

SINKS = [(NotifierHttp, "http"), (NotifierWebsocket, "ws")]


@contextmanager
def websocket_server(handler: Callable[[ServerConnection], None], port: int = 0, **options: Any) -> Iterator[int]:
    with serve(handler, "127.0.0.1", port, close_timeout=2, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
    thread.join(timeout=10)


class Listener:
    """A WebSocket server that keeps what it hears and counts who connects."""

    def __init__(self) -> None:
        self.heard: queue.Queue[dict[str, Any]] = queue.Queue()
        self.connections = 0

    def __call__(self, connection: ServerConnection) -> None:
        self.connections += 1
        for text in connection:
            self.heard.put(json.loads(text))

    def next(self) -> dict[str, Any]:
        return self.heard.get(timeout=10)


def test_messages_arrive_in_order_over_one_connection_as_json():
    listener = Listener()
    with (
        websocket_server(listener) as port,
        living(NotifierWebsocket(f"ws://127.0.0.1:{port}")) as sink,
    ):
        sent = [Message(Object(n=n, x=np.arange(2)), meta={"name": "é"}, creator="ocr", version=n) for n in range(20)]
        for message in sent:
            sink.update(message)
        assert [listener.next() for _ in sent] == [message.to_dict() for message in sent]
        assert listener.connections == 1


def test_a_server_that_restarts_gets_everything_after_it_too():
    first, second, port = Listener(), Listener(), free_port()
    with living(NotifierWebsocket(f"ws://127.0.0.1:{port}", backoff=0.01)) as sink:
        with websocket_server(first, port):
            sink.update(Message(1))
            assert first.next()["payload"] == 1
        with websocket_server(second, port):
            sink.update(Message(2))
            sink.update(Message(3))
            assert [second.next()["payload"], second.next()["payload"]] == [2, 3]
            assert second.connections == 1
            sink.destroy()


def test_a_server_that_is_not_ready_yet_gets_the_message_by_a_retry():
    """The port answers, hangs up, is closed, and only then the server comes."""
    listener = Listener()
    with socket.create_server(("127.0.0.1", 0)) as early:
        port = early.getsockname()[1]
        with living(NotifierWebsocket(f"ws://127.0.0.1:{port}", retries=200, backoff=0.0001)) as sink:
            update = threading.Thread(target=sink.update, args=(Message(7),))
            update.start()
            sock, _ = early.accept()
            sock.close()
            early.close()
            sink.backoff = 0.01
            with websocket_server(listener, port):
                assert listener.next()["payload"] == 7
                update.join(timeout=10)
                sink.destroy()


class Silent(ServerConnection):
    """A server's end that reads, but answers no ping."""

    def recv_events(self) -> None:
        send = self.protocol.send_frame
        self.protocol.send_frame = lambda frame: None if frame.opcode is Opcode.PONG else send(frame)
        super().recv_events()


def test_a_message_whose_server_died_before_the_receipt_is_sent_again():
    heard: queue.Queue[Any] = queue.Queue()
    ends = iter([Silent])

    def dies_on_the_first(connection: ServerConnection) -> None:
        for text in connection:
            heard.put((type(connection).__name__, json.loads(text)["payload"]))
            if isinstance(connection, Silent):
                connection.socket.shutdown(socket.SHUT_RDWR)

    options = {"create_connection": lambda *args, **more: next(ends, ServerConnection)(*args, **more)}
    with (
        websocket_server(dies_on_the_first, **options) as port,
        living(NotifierWebsocket(f"ws://127.0.0.1:{port}", backoff=0.001)) as sink,
    ):
        sink.update(Message(1))
        sink.update(Message(2))
        received = [heard.get(timeout=10) for _ in range(3)]
    assert received == [("Silent", 1), ("ServerConnection", 1), ("ServerConnection", 2)]


def test_a_server_that_talks_back_does_not_fill_the_line():
    heard: queue.Queue[Any] = queue.Queue()

    def chatty(connection: ServerConnection) -> None:
        for text in connection:
            for _ in range(40):
                connection.send("thanks")
            heard.put(json.loads(text)["payload"])

    with (
        websocket_server(chatty) as port,
        living(NotifierWebsocket(f"ws://127.0.0.1:{port}", timeout=20, retries=0)) as sink,
    ):
        for number in range(10):
            sink.update(Message(number))
        assert [heard.get(timeout=10) for _ in range(10)] == list(range(10))


def test_a_server_that_never_confirms_is_an_error_in_the_end():
    with (
        websocket_server(Listener(), create_connection=Silent) as port,
        living(NotifierWebsocket(f"ws://127.0.0.1:{port}", timeout=0.2, retries=1, backoff=0)) as sink,
        pytest.raises(ConnectionError, match=r"did not take the message in 2 tries: no receipt within 0\.2 s"),
    ):
        sink.update(Message(1))


@pytest.mark.parametrize(("node", "scheme"), SINKS)
def test_a_server_that_is_down_is_named_with_the_cure_and_no_password(node, scheme):
    port = free_port()
    with (
        living(node(f"{scheme}://me:secret@127.0.0.1:{port}/in?token=secret", retries=2, backoff=0)) as sink,
        pytest.raises(ConnectionError) as raised,
    ):
        sink.update(Message(1))
    text = str(raised.value)
    assert text.startswith(f"{scheme}://127.0.0.1:{port}/in did not take the message in 3 tries: ")
    assert "refused" in text
    assert "start the server there, change 'endpoint'" in text
    assert "secret" not in text


@pytest.mark.parametrize(("node", "scheme"), SINKS)
@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:8080", "ftp://127.0.0.1", "", None, "{scheme}://", "{scheme}://h:0/", "{scheme}://me:secret@h/#a"],
)
def test_an_endpoint_that_is_no_address_is_refused_at_once(node, scheme, endpoint):
    with pytest.raises(ValueError, match=f"endpoint: .* is no address; write something like {scheme}://") as raised:
        node(endpoint and endpoint.format(scheme=scheme))
    assert "secret" not in str(raised.value)


def test_no_log_and_no_error_shows_what_is_secret(monkeypatch, caplog):
    monkeypatch.setenv("https_proxy", "odd://me:hushed@127.0.0.1:1")
    quiet = logging.getLogger("tests.server")
    quiet.setLevel(logging.CRITICAL)
    with (
        caplog.at_level(logging.DEBUG),
        websocket_server(listener := Listener(), logger=quiet) as port,
        living(NotifierWebsocket(f"ws://me:hushed@127.0.0.1:{port}/?token=hushed")) as sink,
    ):
        sink.update(Message(1))
        assert listener.next()["payload"] == 1
    with (
        living(NotifierWebsocket("wss://192.0.2.1/", retries=0)) as sink,
        pytest.raises(ConnectionError, match="did not take") as raised,
    ):
        sink.update(Message(1))
    assert "hushed" not in caplog.text + "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(("node", "scheme"), SINKS)
@pytest.mark.parametrize(
    "arguments", [{"timeout": 0}, {"timeout": "5"}, {"retries": -1}, {"retries": 1.5}, {"backoff": -0.1}]
)
def test_a_wrong_number_is_named(node, scheme, arguments):
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(arguments))}: "):
        node(f"{scheme}://127.0.0.1:1", **arguments)


@pytest.mark.parametrize(("node", "scheme"), SINKS)
def test_destroy_is_safe_at_any_point_of_the_life(node, scheme):
    sink = node(f"{scheme}://127.0.0.1:1")
    sink.destroy()
    sink.configure()
    sink.destroy()
    sink.warmup()
    sink.destroy()
    sink.destroy()


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    listener = Listener()
    with websocket_server(listener) as port, living(NotifierWebsocket(f"ws://localhost:{port}", retries=0)) as sink:
        sink.update(Message(2))
        assert listener.next()["payload"] == 2
