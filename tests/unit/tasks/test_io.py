"""FetchUrl against a real HTTP server that answers well, badly, too much, too slowly."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from celerypipe import Message, Object
from tasks.io import FetchUrl

CONTENT = bytes(range(256)) * 40


class Answers(BaseHTTPRequestHandler):
    """One path for each way to answer."""

    closing = threading.Event()

    def do_GET(self) -> None:
        match self.path.split("?")[0]:
            case "/good":
                self.answer(200, CONTENT)
            case "/moved":
                self.answer(302, b"", Location="/good")
            case "/circle":
                self.answer(302, b"", Location="/circle")
            case "/to-file":
                self.answer(302, b"", Location="file:///etc/passwd")
            case "/endless":
                self.endless()
            case "/trickle":
                self.trickle()
            case _:
                self.answer(404, b"")

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": "image/png", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.closing.is_set():
            self.wfile.write(b"x" * 65536)

    def trickle(self) -> None:
        """One byte of a header at a time, each well within any timeout for a single read."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.closing.wait(0.02):
            self.wfile.write(b"x")

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            return  # the client left, as these tests want

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[str]:
    """A server's address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        Answers.closing.clear()
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        Answers.closing.set()
        listening.shutdown()
        thread.join()


@pytest.fixture
def fetch() -> Iterator[FetchUrl]:
    """A warm node, impatient and with little room."""
    node = FetchUrl(timeout=5.0, limit=100_000)
    node.configure()
    node.warmup()
    yield node
    node.destroy()


def test_what_a_url_names_comes_as_bytes(fetch: FetchUrl, server: str) -> None:
    answer = fetch.update(Message(Object(url=f"{server}/good"), meta={"page": 7}))

    assert answer.payload.cnt == CONTENT
    assert answer.meta == {"page": 7, "url": f"{server}/good", "status": 200, "content_type": "image/png"}


def test_redirects_are_followed_and_said(fetch: FetchUrl, server: str) -> None:
    answer = fetch.update(Message(f"{server}/moved"))

    assert answer.payload.cnt == CONTENT
    assert answer.meta["url"] == f"{server}/good"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/nothing", "answered 404 Not Found"),
        ("/circle", "more than 5 redirects"),
        ("/to-file", "not http or https"),
        ("/endless", "more than 100000 bytes"),
    ],
)
def test_a_bad_answer_is_a_value_error_that_says_why(fetch: FetchUrl, server: str, path: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        fetch.update(Message(server + path))
    assert fetch.update(Message(f"{server}/good")).payload.cnt == CONTENT


def test_an_answer_that_trickles_in_byte_by_byte_ends_with_the_timeout(server: str) -> None:
    node = FetchUrl(timeout=0.5)
    node.warmup()
    try:
        with pytest.raises(TimeoutError, match=r"not here after 0\.5 s"):
            node.update(Message(f"{server}/trickle"))
    finally:
        node.destroy()


def test_nobody_there_is_a_connection_error_without_the_password(fetch: FetchUrl) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionError) as caught:
            fetch.update(Message(f"http://me:secret@127.0.0.1:{port}/"))
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "example.org", "http://", "http://host:x", "\n"])
def test_what_is_no_web_address_is_refused(fetch: FetchUrl, url: str) -> None:
    with pytest.raises(ValueError, match="write https://host/path"):
        fetch.update(Message(url))


def test_a_payload_without_a_url_is_refused(fetch: FetchUrl) -> None:
    for payload in (7, Object(address="x"), None):
        with pytest.raises(TypeError, match="Object with 'url'"):
            fetch.update(Message(payload))


def test_a_warm_node_may_be_lent_to_one_thread_after_another(fetch: FetchUrl, server: str) -> None:
    for _ in range(3):
        with ThreadPoolExecutor(1) as another:
            assert another.submit(fetch.update, Message(f"{server}/good")).result().payload.cnt == CONTENT


def test_a_node_that_was_never_warmed_up_can_be_let_go() -> None:
    FetchUrl().destroy()
