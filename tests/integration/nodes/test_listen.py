"""json_http on a port of this machine, and what both sources that listen have in common."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from celerypipe.errors import ConfigError
from celerypipe.message.payload import Object
from celerypipe.nodes.json_http import JsonHttp
from celerypipe.nodes.json_websocket import JsonWebsocket
from tests.runs.living import Reader, living

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

LISTENERS = [(JsonHttp, "port"), (JsonWebsocket, "rtx_port")]


def url(source: JsonHttp, path: str = "celerypipe") -> str:
    return f"http://127.0.0.1:{source.port}/{path}"


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


def test_a_posted_object_becomes_a_message(client):
    with living(JsonHttp(port="auto")) as source:
        reader = Reader(source)
        for number in range(3):
            assert client.post(url(source), json={"n": number, "text": "héllo"}).status_code == 202
        messages = [reader.next() for _ in range(3)]
        assert [message.payload for message in messages] == [{"n": n, "text": "héllo"} for n in range(3)]
        assert [message.version for message in messages] == [0, 1, 2]
        assert isinstance(messages[0].payload, Object)


def test_many_clients_at_once_lose_nothing():
    with living(JsonHttp(port="auto", limit=200, capacity=200)) as source:

        def post(first: int) -> None:
            with httpx.Client(trust_env=False, timeout=10) as client:
                for number in range(first, first + 25):
                    assert client.post(url(source), json={"n": number}).status_code == 202

        threads = [threading.Thread(target=post, args=(first,)) for first in range(0, 200, 25)]
        for thread in threads:
            thread.start()
        assert sorted(message.payload.n for message in source.messages()) == list(range(200))
        for thread in threads:
            thread.join(timeout=10)


def test_health_says_that_the_source_lives(client):
    with living(JsonHttp(port="auto")) as source:
        answer = client.get(url(source, "health"))
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "said"),
    [
        ("other", {"Content-Type": "application/json"}, b"{}", 404, "post to /celerypipe"),
        ("celerypipe", {"Content-Type": "text/plain"}, b"{}", 400, "Content-Type must be application/json"),
        ("celerypipe", {}, b"{}", 400, "Content-Type must be application/json"),
        ("celerypipe", {"Content-Type": "application/json"}, b"", 400, "not JSON"),
        ("celerypipe", {"Content-Type": "application/json"}, b'{"a":', 400, "not JSON"),
        ("celerypipe", {"Content-Type": "application/json"}, b"\xff\xff", 400, "not JSON"),
        ("celerypipe", {"Content-Type": "application/json"}, b"[" * 9000, 400, "not JSON"),
        ("celerypipe", {"Content-Type": "application/json"}, b"[1]", 400, "a JSON object is wanted, not list"),
        ("celerypipe", {"Content-Type": "application/json"}, b"x" * 10_001, 413, "may have 10000 bytes"),
    ],
)
def test_what_is_no_object_is_refused_and_the_next_one_taken(client, path, headers, body, status, said):
    with living(JsonHttp(port="auto", max_bytes=10_000)) as source:
        answer = client.post(url(source, path), content=body, headers=headers)
        assert answer.status_code == status
        assert said in answer.json()["error"]
        good = client.post(
            url(source), content=b'{"good": 1}', headers={"Content-Type": "application/json; charset=utf-8"}
        )
        assert good.status_code == 202
        assert Reader(source).next().payload == {"good": 1}


def test_a_body_far_over_the_limit_still_gets_its_answer(client):
    with living(JsonHttp(port="auto", max_bytes=1000)) as source:
        answer = client.post(url(source), content=b"x" * 5_000_000, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Transfer-Encoding: chunked", 411),
        ("Content-Length: -5", 411),
        ("Content-Length: many", 411),
        ("X-None: 1", 411),
        ("Content-Length: " + "9" * 5000, 413),
    ],
)
def test_a_dishonest_length_is_answered_and_never_waited_for(header, status):
    with (
        living(JsonHttp(port="auto")) as source,
        socket.create_connection(("127.0.0.1", source.port), 10) as sock,
    ):
        sock.sendall(f"POST /celerypipe HTTP/1.1\r\nContent-Type: application/json\r\n{header}\r\n\r\n".encode())
        sock.shutdown(socket.SHUT_WR)
        assert sock.makefile("rb").readline().split()[1] == str(status).encode()


def test_a_body_that_breaks_off_is_no_message(client):
    with living(JsonHttp(port="auto")) as source:
        with socket.create_connection(("127.0.0.1", source.port), 10) as sock:
            sock.sendall(
                b'POST /celerypipe HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"a"'
            )
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        client.post(url(source), json={"whole": True})
        assert Reader(source).next().payload == {"whole": True}


def test_a_busy_pipeline_is_felt_by_the_sender_and_nothing_taken_is_lost(client):
    with living(JsonHttp(port="auto", capacity=2)) as source:
        answers = [client.post(url(source), json={"n": n}) for n in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 503]
        assert answers[2].headers["Retry-After"] == "1"
        reader = Reader(source)
        assert [reader.next().payload.n for _ in range(2)] == [0, 1]
        assert client.post(url(source), json={"n": 3}).status_code == 202
        source.stop()
        assert reader.next().payload.n == 3
        assert reader.has_ended()
        late = client.post(url(source), json={"n": 4})
        assert (late.status_code, late.json()["error"]) == (503, "this source has ended")
        assert "Retry-After" not in late.headers


def test_the_http_source_ends_at_its_limit(client):
    with living(JsonHttp(port="auto", limit=2)) as source:
        answers = [client.post(url(source), json={"n": n}).status_code for n in range(3)]
        assert answers == [202, 202, 503]
        assert [message.payload.n for message in source.messages()] == [0, 1]


@pytest.mark.parametrize(("node", "port"), LISTENERS)
def test_stop_ends_a_source_that_waits(node, port):
    with living(node(**{port: "auto"})) as source:
        reader = Reader(source)
        source.stop()
        assert reader.has_ended()


@pytest.mark.parametrize(("node", "port"), LISTENERS)
def test_a_taken_port_is_named_with_the_cure(node, port):
    with living(node(**{port: "auto"})) as first:
        second = node(**{port: first.port})
        with pytest.raises(ConfigError, match=rf'cannot listen on 127\.0\.0\.1:{first.port}: .*"{port}": "auto"'):
            second.configure()
        second.destroy()


@pytest.mark.parametrize(("node", "port"), LISTENERS)
def test_destroy_frees_the_port_at_any_point_of_the_life(node, port):
    never = node(**{port: "auto"})
    never.destroy()
    configured = node(**{port: "auto"})
    configured.configure()
    taken = configured.port
    configured.destroy()
    with living(node(**{port: taken})) as source:
        with closing(socket.create_connection(("127.0.0.1", taken), 10)):
            source.destroy()
            source.destroy()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", taken), 10)


@pytest.mark.parametrize(("node", "port"), LISTENERS)
@pytest.mark.parametrize("value", [-1, 70_000, "any", 80.0, True])
def test_a_wrong_port_is_refused_with_what_to_write(node, port, value):
    with pytest.raises(ValueError, match=f"{port}: .* is no port; write a number from 1 to 65535"):
        node(**{port: value})
