"""``json_http``: a source that listens for JSON objects over HTTP."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from celerypipe.nodes.parts.inbox import Reception
from celerypipe.nodes.parts.listener import Listener, object_in

#: The most of an unwanted body that is read and thrown away, so that the sender gets to see the answer.
LONGEST_DISCARD = 16 * 1024 * 1024

BUSY = "the pipeline is busy; try again"


class JsonHttp(Listener):
    """Answers ``POST /<endpoint>``: the JSON object in the body becomes one message with an Object as payload.

    Answers 202 when the object waits for the pipeline, 400 for a body that is no JSON object (or a type that is not
    ``application/json``), 404 elsewhere, 411 without a length, 413 when it is too long, 503 with ``Retry-After`` while
    ``capacity`` objects wait already. ``GET /health`` answers 200. What was answered with 202 is sent on even after
    ``stop``. ``version`` of a message counts from 0. After juturna's node of the same mark.

    ``host``: address to listen on
    ``port``: TCP port, or ``"auto"`` for any free one; the attribute ``port`` tells which after ``configure``
    ``endpoint``: path to post to
    ``limit``: ends after this many messages; None: never
    ``capacity``: how many objects may wait for the pipeline
    ``max_bytes``: longest body in bytes
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | str = 8888,
        endpoint: str = "celerypipe",
        limit: int | None = None,
        capacity: int = 64,
        max_bytes: int = 1024 * 1024,
    ) -> None:
        super().__init__(host, port, argument="port", limit=limit, capacity=capacity, max_bytes=max_bytes)
        self.endpoint = endpoint.strip("/")
        self._server: HttpServer | None = None

    def warmup(self) -> None:
        """Start to answer."""
        if self._socket is None:
            raise RuntimeError("json_http: no port yet; call configure() before warmup()")
        self._server = HttpServer(self._socket, self)
        self.begin(
            functools.partial(self._server.serve_forever, 0.1), f"http://{self.host}:{self.port}/{self.endpoint}"
        )

    def end_server(self) -> None:
        """Close every connection."""
        if self._server:
            self._server.shutdown()
            self._server.end_connections()
            self._server = None


class HttpServer(ThreadingHTTPServer):
    """A thread a connection, on a socket that listens already; all of them can be ended at once."""

    def __init__(self, listening: socket.socket, source: JsonHttp) -> None:
        super().__init__(listening.getsockname(), RequestHandler, bind_and_activate=False)
        self.socket.close()  # the one that its class made for itself
        self.socket = listening
        self.source = source
        self._open: set[socket.socket] = set()
        self._lock = threading.Condition()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection, then serve it in a thread."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection and forget it."""
        super().shutdown_request(request)
        with self._lock:
            self._open.discard(request)
            self._lock.notify_all()

    def end_connections(self) -> None:
        """End what is still open and wait until its threads have let go."""
        with self._lock:
            for request in self._open:
                with contextlib.suppress(OSError):  # the other side was faster
                    request.shutdown(socket.SHUT_RDWR)
            self._lock.wait_for(lambda: not self._open, timeout=RequestHandler.timeout)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with one connection; the others go on."""
        error = sys.exception()
        level = logging.DEBUG if isinstance(error, ConnectionError) else logging.ERROR
        self.source.logger.log(level, "connection from %s: %r", client_address, error)


class RequestHandler(BaseHTTPRequestHandler):
    """One connection to the source."""

    server: HttpServer
    protocol_version = "HTTP/1.1"
    server_version = "celerypipe"
    sys_version = ""
    #: Seconds without a byte after which a connection is closed.
    timeout = 10
    # An answer leaves as one packet: written in two, it waits 40 ms for the other side's delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Take the object in the body, or say why not."""
        body = self._body()
        if body is not None:
            status, error = self._take(body)
            self._answer(status, error)

    def _take(self, body: bytes) -> tuple[HTTPStatus, str]:
        source = self.server.source
        if urlsplit(self.path).path.strip("/") != source.endpoint:
            return HTTPStatus.NOT_FOUND, f"post to /{source.endpoint}"
        if self.headers.get_content_type() != "application/json":
            return HTTPStatus.BAD_REQUEST, "Content-Type must be application/json"
        value = object_in(body)
        if isinstance(value, str):
            return HTTPStatus.BAD_REQUEST, value
        match source.inbox.put(value):
            case Reception.TAKEN:
                return HTTPStatus.ACCEPTED, ""
            case Reception.FULL:
                return HTTPStatus.SERVICE_UNAVAILABLE, BUSY
            case Reception.CLOSED:
                return HTTPStatus.SERVICE_UNAVAILABLE, "this source has ended"

    def do_GET(self) -> None:
        """Say that the source lives."""
        if self.path == "/health":
            self._answer(HTTPStatus.OK)
        else:
            self._answer(HTTPStatus.NOT_FOUND, f"post to /{self.server.source.endpoint}, or get /health")

    def log_message(self, format: str, *args: Any) -> None:
        """Log to the node's logger instead of standard error."""
        self.server.source.logger.debug(format, *args)

    def _body(self) -> bytes | None:
        """Return the body, or answer and return None when it has no honest length."""
        max_bytes = self.server.source.max_bytes
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self.close_connection = True  # where the next request begins is unknown
            self._answer(HTTPStatus.LENGTH_REQUIRED, "Content-Length is wanted")
            return None
        if len(length) > 15 or int(length) > max_bytes:
            self.close_connection = True
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body may have {max_bytes} bytes")
            self._discard(min(int(length[:15]), LONGEST_DISCARD))
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return None
        return body

    def _discard(self, length: int) -> None:
        """Read what is still coming: closing on unread bytes would reset the connection and lose the answer."""
        while length > 0 and (chunk := self.rfile.read1(min(length, 65536))):
            length -= len(chunk)

    def _answer(self, status: HTTPStatus, error: str = "") -> None:
        content = json.dumps({"error": error} if error else {"status": "ok"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if error == BUSY:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
