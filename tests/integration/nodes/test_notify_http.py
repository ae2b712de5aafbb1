"""notifier_http against a real HTTP server on this machine."""

from __future__ import annotations

import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from celerypipe.message.message import Message
from celerypipe.message.payload import Object
from celerypipe.nodes.json_http import JsonHttp
from celerypipe.nodes.notifier_http import NotifierHttp
from tests.runs.living import living

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


class Recorder(ThreadingHTTPServer):
    """An HTTP server that keeps what is posted, and answers with the given statuses in turn, then with 200."""

    daemon_threads = True

    def __init__(self, *answers: tuple[int, dict[str, str]], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), RecorderHandler)
        self.answers = list(answers)
        self.posted: list[tuple[str, str, Any]] = []
        self.clients: set[Any] = set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/in"

    def __enter__(self) -> Recorder:
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class RecorderHandler(BaseHTTPRequestHandler):
    server: Recorder
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.server.clients.add(self.client_address)
        status, headers = self.server.answers.pop(0) if self.server.answers else (200, {})
        self.send_response(status)
        for name, value in {"Content-Length": "4", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"text")

    def log_message(self, *_: object) -> None:
        pass


def test_each_message_is_posted_over_one_connection():
    with Recorder() as server, living(NotifierHttp(server.endpoint)) as sink:
        sent = [Message(Object(n=n), meta={"name": "é"}) for n in range(5)]
        for message in sent:
            sink.update(message)
        assert server.posted == [("/in", "application/json", message.to_dict()) for message in sent]
        assert len(server.clients) == 1


def test_the_content_type_is_the_one_asked_for():
    with Recorder() as server, living(NotifierHttp(server.endpoint, content_type="text/plain")) as sink:
        sink.update(Message(1))
        assert server.posted[0][1] == "text/plain"


@pytest.mark.parametrize("status", [500, 502, 503, 408, 429])
def test_a_server_in_trouble_is_tried_again(status):
    with Recorder((status, {}), (status, {})) as server, living(NotifierHttp(server.endpoint, backoff=0.001)) as sink:
        message = Message(1)
        sink.update(message)
        assert [posted[2]["id"] for posted in server.posted] == [message.id] * 3


def test_retry_after_is_waited_for():
    with Recorder((503, {"Retry-After": "1"})) as server, living(NotifierHttp(server.endpoint, backoff=0)) as sink:
        start = time.monotonic()
        sink.update(Message(1))
        assert len(server.posted) == 2
        assert time.monotonic() - start >= 1


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_fails_at_once_with_the_servers_words(status):
    with Recorder((status, {})) as server, living(NotifierHttp(server.endpoint)) as sink:
        with pytest.raises(ValueError, match=rf"{server.endpoint} answered {status} .*'text'.*correct 'endpoint'"):
            sink.update(Message(1))
        assert len(server.posted) == 1


@pytest.mark.parametrize(
    ("headers", "cure"),
    [
        ({"Location": "http://127.0.0.1:1/new"}, r'write "endpoint": "http://127.0.0.1:1/new"$'),
        (
            {"Location": "/new?token=secret"},
            r'write "endpoint": "{place}/new", and behind it the \? with what followed it$',
        ),
        ({}, "correct 'endpoint'$"),
    ],
)
def test_a_redirect_says_where_to(headers, cure):
    with Recorder((301, headers)) as server, living(NotifierHttp(f"{server.endpoint}?token=secret")) as sink:
        with pytest.raises(
            ValueError, match="answered 301 .*" + cure.format(place=server.endpoint.removesuffix("/in"))
        ) as raised:
            sink.update(Message(1))
        assert "secret" not in str(raised.value)


def test_no_log_shows_what_is_secret(caplog):
    with Recorder() as server, Recorder() as another, caplog.at_level(logging.DEBUG):
        endpoint = f"{server.endpoint}?token=secret".replace("//", "//me:secret@")
        with living(NotifierHttp(endpoint)) as sink:
            sink.update(Message(1))
            httpx.post(another.endpoint, json={}, trust_env=False)
        assert len(server.posted) == len(another.posted) == 1
    assert "secret" not in caplog.text
    assert another.endpoint in caplog.text, "what others log of httpx is theirs"


def test_a_server_that_stays_in_trouble_is_given_up():
    with Recorder(*[(500, {})] * 9) as server, living(NotifierHttp(server.endpoint, retries=2, backoff=0)) as sink:
        with pytest.raises(ConnectionError, match="in 3 tries: answered 500 Internal Server Error"):
            sink.update(Message(1))
        assert len(server.posted) == 3
        server.answers.clear()
        sink.update(Message(2))


def test_a_notifier_fills_the_http_source_of_another_pipeline():
    source = JsonHttp(port="auto", limit=30, capacity=1)
    source.configure()
    source.warmup()
    with living(NotifierHttp(f"http://127.0.0.1:{source.port}/celerypipe")) as sink:
        messages = source.messages()
        for number in range(5):
            sink.update(Message(number))
            assert next(messages).payload["payload"] == number
    source.destroy()


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with Recorder() as server, living(NotifierHttp(server.endpoint, retries=0)) as sink:
        sink.update(Message(1))
        assert len(server.posted) == 1


def test_what_others_log_is_let_through_whatever_it_is() -> None:
    node = NotifierHttp(endpoint="http://127.0.0.1:1/?key=s3cret")
    node.warmup()
    args = ("GET", httpx.URL("http://elsewhere/"), "a reason\twith a tab")
    assert logging.getLogger("httpx").filter(logging.makeLogRecord({"msg": "%s %s %s", "args": args}))
    node.destroy()
