"""A heartbeat's connection to Redis, out of bare sockets: directly, by TLS, or where the Sentinels say.

redis-py would cost tens of megabytes for each worker and runner; ssl is loaded only where Redis wants it.
"""

from __future__ import annotations

import _socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Seconds until Redis is tried again, and for a connection to be there; for one of the Sentinels, which are asked
#: one after the other.
RETRY, CONNECT, ASK = 0.5, 3.0, 1.0
#: Seconds without an answer after which a line counts as dead.
SILENCE = 3.0


class ErrorReply(OSError):
    """Redis answered with an error."""

    @property
    def kind(self) -> str:
        """Its first word; of what went wrong in a script, Redis 6.2 tells it at the end."""
        text = str(self)
        return (text.rpartition(" -")[2] if text.startswith("ERR Error running script") else text).partition(" ")[0]


def packed(commands: list[list[bytes | None]], processes: bytes = b"") -> bytes:
    """Return commands as Redis reads them."""
    out = []
    for command in commands:
        out.append(b"*%d\r\n" % len(command))
        for argument in command:
            each = processes if argument is None else argument
            out.append(b"$%d\r\n%b\r\n" % (len(each), each))
    return b"".join(out)


class Wire:
    """A connection to Redis, made anew whenever it breaks. ``socket`` is None while there is none.

    ``owed``: answers that did not come yet.
    """

    def __init__(self, endpoint: dict[str, Any]) -> None:
        self._endpoint = endpoint
        self.socket: Any = None
        self.owed = 0
        self._heard = 0.0
        self._rest = b""

    def send(self, data: bytes, count: int) -> None:
        """Send so many commands, and first, on a new line, who we are; OSError: that did not work."""
        if self.owed and time.monotonic() - self._heard > SILENCE:
            self.close()  # nobody is there, or Redis stands still; what was sent is not lost to that
        if self.socket is None:
            self.socket = self._connected()
            greeting = self._greeting()
            data, count = packed(greeting) + data, count + len(greeting)
        if not self.owed:
            self._heard = time.monotonic()
        self.owed += count
        self.socket.sendall(data)

    def receive(self) -> list[bytes]:
        """Return the answers that are there. :class:`ErrorReply`: one was an error; OSError: it broke."""
        try:
            found = self.socket.recv(4096)
        except TimeoutError:  # a part of what TLS sends
            return []
        if not found:
            raise ConnectionError("closed")
        answers: list[bytes] = (self._rest + found).split(b"\r\n")
        self._rest = answers.pop()
        self._heard = time.monotonic()
        self.owed -= len(answers)
        for answer in answers:
            if answer.startswith(b"-"):
                raise ErrorReply(answer[1:].decode("utf-8", "replace"))
        return answers

    def close(self) -> None:
        """Let go of it."""
        if self.socket is not None:
            self.socket.close()
        self.socket, self.owed, self._rest = None, 0, b""

    def _greeting(self) -> list[list[bytes | None]]:
        at = self._endpoint
        greeting: list[list[bytes | None]] = [[b"AUTH", *at["auth"]]] if at["auth"] else []
        greeting.append([b"CLIENT", b"SETNAME", b"celerypipe-heartbeat"])
        return [*greeting, [b"SELECT", b"%d" % at["database"]]]

    def _connected(self) -> Any:
        at = self._endpoint
        if at.get("path"):
            connected = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            connected.settimeout(RETRY)
            connected.connect(at["path"])
            return connected
        if at.get("sentinels"):
            connected = reached(*self._master(), CONNECT)
        else:
            connected = secured(reached(at["host"], at["port"], CONNECT), at)
        connected.settimeout(RETRY)  # from now on it is read when something came
        return connected

    def _master(self) -> tuple[str, int]:
        """Ask the Sentinels where Redis is."""
        at = self._endpoint
        asking: list[list[bytes | None]] = [[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", at["master"]]]
        if at["sentinel_auth"]:
            asking.insert(0, [b"AUTH", *at["sentinel_auth"]])
        for host, port in at["sentinels"]:
            try:
                sentinel = reached(host, port, ASK)
            except OSError:
                continue
            try:
                sentinel.sendall(packed(asking))
                if address := answered_address(sentinel):
                    return address
            except (OSError, ValueError):
                continue
            finally:
                sentinel.close()
        raise ConnectionError("no Sentinel knows a living master")


def answered_address(sentinel: _socket.socket) -> tuple[str, int] | None:
    """Return the address that a Sentinel answers with; None if it knows none, or refuses."""
    found = b""
    while more := sentinel.recv(4096):
        found += more
        lines = found.removeprefix(b"+OK\r\n").split(b"\r\n")[:-1]
        if lines and lines[0].startswith((b"-", b"*-")):
            break
        if len(lines) == 5:
            return lines[2].decode(), int(lines[4])
    return None


def reached(host: str, port: int, timeout: float) -> _socket.socket:
    """Return a connection; OSError: nobody is there."""
    failure: OSError = ConnectionError("no address")
    # Bytes, since for text Python would load its tables of letters.
    for family, kind, number, _, address in _socket.getaddrinfo(host.encode(), port, 0, _socket.SOCK_STREAM):
        connected = _socket.socket(family, kind, number)
        try:
            connected.settimeout(timeout)
            connected.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            connected.connect(address)
            return connected
        except OSError as error:
            connected.close()
            failure = error
    raise failure


def secured(connected: _socket.socket, at: dict[str, Any]) -> Any:
    """Return the connection as the endpoint wants it: encrypted, or as it is. See redis-py's SSLConnection."""
    tls = at.get("tls")
    if tls is None:
        return connected
    import socket  # 8 MB that only rediss:// costs
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = tls["cert_reqs"] != "none" and tls["check_hostname"]
    modes = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
    context.verify_mode = modes[tls["cert_reqs"]]
    if tls["certfile"] or tls["keyfile"]:
        context.load_cert_chain(tls["certfile"], tls["keyfile"], tls["password"])
    if tls["ca_certs"] or tls["ca_path"]:
        context.load_verify_locations(tls["ca_certs"], tls["ca_path"])
    plain = socket.socket(fileno=connected.detach())
    try:
        plain.settimeout(CONNECT)
        return context.wrap_socket(plain, server_hostname=at["host"])
    except OSError:
        plain.close()
        raise
