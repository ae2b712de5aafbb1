"""A server of metrics and of numbers to scale by; one look at Redis at a time, however many ask."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from celerypipe.definition.names import wrong_queue
from celerypipe.errors import ConfigError, RedisUnavailable
from celerypipe.redis.address import Address
from celerypipe.redis.connection import connect, explained
from celerypipe.web.families import registry_of
from celerypipe.web.overview import Load, Overview, read_overview

#: Seconds that Redis has for one answer, and whoever asks for one request.
PATIENCE, REQUEST = 2.0, 10.0
PATHS = "no such page; try /metrics, /queues, /queues/NAME or /healthz\n"


class Lookout:
    """Reads overviews, on lines that it keeps. ``cache``: the Redis of the result cache, if it is another one."""

    def __init__(self, address: Address, cache: Address | None, say: Callable[[str], None] = lambda _: None) -> None:
        self._address = address
        self._client = connect(address, name="celerypipe-metrics", timeout=PATIENCE)
        other = cache is not None and cache != address
        self._cache = connect(cache, name="celerypipe-metrics", timeout=PATIENCE) if cache and other else None
        #: Is told once that Redis is away, and once that it is back.
        self.say = say
        self._lock = threading.Lock()
        self._began = 0.0
        self._found: Overview | RedisUnavailable | None = None

    def look(self) -> Overview:
        """Return an overview; :class:`RedisUnavailable` if there is no Redis.

        All who ask while one is read share the next one: else they would wait in a row for a Redis that is frozen.
        """
        asked = time.monotonic()
        with self._lock:
            if self._began < asked:
                began = time.monotonic()
                self._found = self._read(before=self._found)
                self._began = began
            found = self._found
        if isinstance(found, Overview):
            return found
        raise RedisUnavailable(str(found))

    def _read(self, before: Overview | RedisUnavailable | None) -> Overview | RedisUnavailable:
        was_away = isinstance(before, RedisUnavailable)
        try:
            with explained(self._address):
                found = read_overview(self._client, self._cache)
        except RedisUnavailable as error:
            self._client.close()
            if not was_away:
                self.say(f"{error}; trying again with each request")
            return error
        if was_away:
            self.say("Redis works again")
        return found

    def glance(self) -> Overview | None:
        """As :meth:`look`; None if there is no Redis."""
        try:
            return self.look()
        except RedisUnavailable:
            return None


class Quiet(WSGIRequestHandler):
    """Says nothing of requests; one that does not go on is closed."""

    timeout = REQUEST

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class Server(ThreadingWSGIServer):
    """A thread for each request. Who leaves or says nothing is no error of ours, and nothing to write into a log."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called over what a request raised."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class SixServer(Server):
    """The same at an address of IPv6."""

    address_family = socket.AF_INET6


class MetricsServer:
    """Serves until it is closed. ``port`` 0: one that is free; ``url`` says which."""

    def __init__(self, host: str, port: int, lookout: Lookout) -> None:
        kind = SixServer if ":" in host else Server
        try:
            self._server = make_server(host, port, application(lookout), kind, Quiet)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error}; choose another address or port") from None
        self.port = self._server.server_port
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; who waits for an answer gets none."""
        self._server.shutdown()
        self._server.server_close()


def application(lookout: Lookout) -> Callable[..., Iterable[bytes]]:
    """Return what answers requests."""
    metrics = make_wsgi_app(registry_of(lookout.glance))

    def answer(environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace").rstrip("/")
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            respond("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Type", "text/plain")])
            return [b"use GET\n"]
        if path == "/metrics":
            found: Iterable[bytes] = metrics({**environ, "REQUEST_METHOD": "GET"}, respond)
        else:
            status, kind, text = _answer(lookout, path)
            respond(status, [("Content-Type", f"{kind}; charset=utf-8")])
            found = [text.encode()]
        return [] if method == "HEAD" else found

    return answer


def _answer(lookout: Lookout, path: str) -> tuple[str, str, str]:
    """Status, type and text. Without Redis there are no numbers: none would be taken for an idle queue."""
    if path == "/healthz":
        return "200 OK", "text/plain", "ok\n"
    _, first, *names = path.split("/") if path else ("", "", "")
    if first != "queues" or len(names) > 1 or any(map(wrong_queue, names)):
        return "404 Not Found", "text/plain", PATHS
    try:
        queues = lookout.look().queues
    except RedisUnavailable as error:
        return "503 Service Unavailable", "application/json", json.dumps({"error": str(error)})
    if names:
        return "200 OK", "application/json", json.dumps(asdict(queues.get(names[0], Load())))
    return "200 OK", "application/json", queues_as_json(queues)


def queues_as_json(queues: dict[str, Load], indent: int | None = None) -> str:
    """Return the numbers of queues as JSON text, the same wherever they are shown."""
    return json.dumps({"queues": {name: asdict(load) for name, load in queues.items()}}, indent=indent)
