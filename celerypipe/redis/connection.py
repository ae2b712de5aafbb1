"""A Redis client with explicit timeouts and no hidden retries, a short way for the hot path, and failures in our words.

redis-py retries by itself and blocks beyond ``socket_timeout`` when a server freezes; whoever uses these clients
decides about retries. One client per thread, never one per call.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from celerypipe.errors import ConfigError, RedisUnavailable
from celerypipe.redis.address import Address
from celerypipe.redis.keys import USUAL
from celerypipe.redis.line import KEEP_ALIVE, LOOK_AFTER, drop_if_dead
from celerypipe.redis.sentinel import Watchers, asking
from celerypipe.redis.url import read_address

logger = logging.getLogger(__name__)

#: What redis-py raises when the server is away, frozen, loading or refusing: worth another try later.
Trouble = (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, OSError)
#: The same, and a server that answers with an error: nothing was done, whatever the reason.
Broken = (*Trouble, redis.ResponseError)

#: Seconds a call may take before the connection counts as broken; blocking reads add their own.
CALL_TIMEOUT = 10.0

#: Arguments above this size are written where they lie; below, copying them into one write costs less.
COPY_BELOW = 16 * 1024

#: What a connection calls itself. redis-py would look for its own version in the files of its installation, each time.
DRIVER = redis.DriverInfo(lib_version=redis.__version__)

#: Bytes that are read at a time; redis-py's own 64 KiB make a frame cost fifteen reads.
READ_SIZE = 256 * 1024

#: Bytes that are written at a time: the timeout of a socket is for all of one write, however slow the line is.
WRITE_SIZE = 256 * 1024

#: What Redis says where ``maxclients`` is reached, and the cure, which needs a connection too.
FULL = "max number of clients reached"
MORE = "end one that is connected, then: redis-cli CONFIG SET maxclients 10000 (its ulimit -n must allow that)"

#: A command and its arguments; one that is a list stands for its parts, one after the other.
Command = Sequence[Any]
T = TypeVar("T")


class Client(redis.Redis):
    """redis-py's client, with a connection of its own for commands that are written together and answered in order.

    That way costs 9 µs of CPU a command where ``execute_command`` costs 20: it packs in C, takes no connection out of
    a pool, and gives answers as hiredis reads them. :meth:`ask` and :meth:`answer` must be paired; after any exception
    but a refusal (``redis.ResponseError``) what was asked is not answered any more.
    """

    #: What our keys are called there.
    names = USUAL
    address = Address()
    _line: Any = None
    _owed = 0
    _asked_at = 0.0

    def ask(self, *commands: Command) -> None:
        """Write commands, at once; their answers are to be taken with :meth:`answer`."""
        now = time.monotonic()
        if self._line is None:
            self._line = self.connection_pool.make_connection()
        elif self._owed:  # an exception came between question and answer: the answers on their way are nobody's
            self._line.disconnect()
        elif now - self._asked_at > LOOK_AFTER:
            drop_if_dead(self._line, now - self._asked_at)
        if not self._line.is_connected:  # sending would connect as well, but without asking the Sentinels
            self._line.connect()
        self._asked_at = now
        self._owed = len(commands)
        self._line.send_packed_command(packed(commands), check_health=False)

    def answer(self) -> Any:
        """Return the next answer; a refusal is raised as ``redis.ResponseError`` and spoils nothing after it."""
        try:
            answer = self._line.read_response()
        except redis.ResponseError:
            self._owed -= 1
            raise
        self._owed -= 1
        return answer

    def answers(self, count: int) -> list[Any]:
        """Return so many answers; one that is a refusal is returned as it is."""
        found: list[Any] = []
        for _ in range(count):
            try:
                found.append(self.answer())
            except redis.ResponseError as refusal:
                found.append(refusal)
        return found

    def call(self, *command: Any) -> Any:
        """Write one command and return its answer."""
        self.ask(command)
        return self.answer()

    def together(self, *commands: Command) -> list[Any]:
        """Write commands at once and return all answers; one that is refused has the refusal as its answer."""
        self.ask(*commands)
        return self.answers(len(commands))

    def now(self) -> float:
        """Return the time by Redis' clock, in seconds."""
        seconds, microseconds = self.time()
        return float(seconds + microseconds / 1e6)

    def close(self) -> None:
        """Let go of the connections; the next command makes new ones."""
        if self._line is not None:
            self._line.disconnect()
        super().close()


class OneLine(Client):
    """One of a single thread: redis-py's own commands go along that connection as well, so that it has no other.

    A pipeline of redis-py's would make one: see :meth:`together`.
    """

    def execute_command(self, *command: Any, **options: Any) -> Any:
        """Do what a method of redis-py's asks for."""
        self.ask(command)
        try:
            answer = self.parse_response(self._line, command[0], **options)  # type: ignore[no-untyped-call]
        except redis.ResponseError:
            self._owed = 0
            raise
        self._owed = 0
        return answer


def tried_again(client: Client, work: Callable[[], T]) -> T:
    """Return what ``work`` returns; where its line broke it is done once more, on a new one. For what may be twice."""
    try:
        return work()
    except Trouble:
        client.close()
        return work()


def accepted(answers: list[Any]) -> list[Any]:
    """Return the answers of :meth:`Client.together`, or raise the first refusal among them."""
    for answer in answers:
        if isinstance(answer, redis.ResponseError):
            raise answer
    return answers


def packed(commands: Iterable[Command]) -> list[Any]:
    """Return the bytes of commands, as few pieces as can be without copying large ones."""
    pieces: list[Any] = []
    small: list[bytes] = []
    for command in commands:
        if not any(type(argument) is list for argument in command):
            small.append(hiredis.pack_command(tuple(command)))
            continue
        small.append(b"*%d\r\n" % len(command))
        for argument in command:
            parts = argument if type(argument) is list else [_plain(argument)]
            small.append(b"$%d\r\n" % sum(map(_size, parts)))
            for part in parts:
                if _size(part) < COPY_BELOW:
                    small.append(part)
                else:
                    pieces.append(b"".join(small))
                    view = memoryview(part).cast("B")
                    pieces += [view[start : start + WRITE_SIZE] for start in range(0, len(view), WRITE_SIZE)]
                    small = []
            small.append(b"\r\n")
    return [*pieces, b"".join(small)]


def _size(part: bytes | memoryview) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)


def _plain(argument: str | bytes | int) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()


def connect(
    where: Address | str, *, name: str = "celerypipe", timeout: float = CALL_TIMEOUT, kind: type[Client] = Client
) -> Client:
    """Return a client of an address, or of one as text; it connects with its first command, and again after a failure.

    Behind Sentinels it asks them for the master with each new connection; a master that became a replica counts as a
    broken connection.
    """
    address = read_address(where) if isinstance(where, str) else where
    options: dict[str, Any] = {
        "username": address.user,
        "password": address.password,
        "db": address.database,
        "socket_timeout": timeout,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),
        "client_name": name,
        "driver_info": DRIVER,
        "protocol": 2,
        "socket_read_size": READ_SIZE,
    }
    if address.path:
        options |= {"connection_class": redis.UnixDomainSocketConnection, "path": address.path}
    else:
        options["socket_connect_timeout"] = min(3.0, timeout)
        options |= {"socket_keepalive": True, "socket_keepalive_options": KEEP_ALIVE}
    if (sentinels := address.sentinels) is not None:
        known = Watchers(sentinels.places, sentinel_kwargs=asking(sentinels))  # type: ignore[no-untyped-call]  # redis-py's
        client: Client = known.master_for(sentinels.master, kind, **options)  # type: ignore[no-untyped-call]
    else:
        if address.host:
            options |= {"host": address.host, "port": address.port}
        if address.tls is not None:
            options |= {"connection_class": redis.SSLConnection, **address.tls.options()}
        client = kind.from_pool(redis.ConnectionPool(**options))  # type: ignore[assignment]  # its stub says redis.Redis
    client.names, client.address = address.names, address
    return client


def is_gone(address: Address) -> bool:
    """Is it a socket whose folder was removed? A private Redis that ended for good leaves it so."""
    return bool(address.path) and not Path(address.path).parent.is_dir()


def knock(address: Address, option: str) -> str:
    """Say that Redis is not there, which may change, and the cure; nothing if it is. ``option`` gives its address.

    :class:`ConfigError` if Redis refuses us, or is a cluster: a wrong password stays wrong.
    """
    try:
        with connect(address, name="celerypipe-boot", timeout=2.0) as client:
            client.ping()
            with suppress(redis.exceptions.NoPermissionError):  # this user may not ask
                if client.info("cluster").get("cluster_enabled"):
                    raise ConfigError(_cluster(address))
    except (*Broken, redis.exceptions.InvalidResponse) as error:
        if text := _refusal(address, error):
            raise ConfigError(text) from None
        return _absence(address, error, option)
    return ""


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turn what redis-py raises inside the block into :class:`RedisUnavailable` with the cure."""
    try:
        yield
    except (*Broken, redis.exceptions.InvalidResponse) as error:
        raise RedisUnavailable(_refusal(address, error) or _absence(address, error)) from None


def _absence(address: Address, error: BaseException, option: str = "--redis") -> str:
    if FULL in str(error):
        return f"Redis at {address} takes no more connections; {MORE}"
    if isinstance(error, redis.TimeoutError) and "reading" in str(error):
        cure = "it is overloaded or stopped: look at its log, or wait"
        return f"Redis does not answer: {address} ({error}); {cure}"
    cure = f"start it, or give its address with {option} or CELERYPIPE_REDIS_URL"
    return f"Redis is not there: {address} ({error}); {cure}"


def _cluster(address: Address) -> str:
    return f"Redis at {address} is part of a cluster, for which Celery has no broker; give the address of one Redis"


def _refusal(address: Address, error: BaseException) -> str:
    """What stays wrong until somebody mends it, with the cure; empty for trouble that may pass."""
    match error:
        case redis.AuthenticationError() if "without any password configured" in str(error):
            return f"Redis at {address} has no password; leave it out: redis://host:6379/0"
        case redis.AuthenticationError():
            return f"Redis at {address} needs a password, or refuses this one ({error}); write redis://:PASSWORD@host:6379/0"
        case redis.exceptions.NoPermissionError():
            return f"Redis at {address} does not allow this user what a pipeline needs: {error}"
        case redis.exceptions.ClusterDownError() if not isinstance(error, redis.exceptions.MasterDownError):
            return _cluster(address)
        case redis.exceptions.AskError() | redis.exceptions.ClusterCrossSlotError():
            return _cluster(address)
        case redis.ResponseError():
            return f"Redis at {address} refuses: {error}"
        case redis.exceptions.InvalidResponse():
            return f"{address} is not a Redis server ({error}); give the address of one"
    if not _is_refused(address, error):
        return ""
    return (
        f"Redis at {address}: no encrypted connection ({error}); write rediss://host:6379/0?ssl_ca_certs=CA.pem, and "
        "&ssl_certfile=CERT.pem&ssl_keyfile=KEY.pem if Redis asks for a certificate"
    )


def said(error: BaseException) -> str:
    """Return one sentence on what Redis, or the lack of it, said in the middle of the work, with a cure if it has one.

    redis-py takes the first word off what Redis says, and makes it the class of the error; out of a script it comes
    with the script's own words around it.
    """
    text = str(error)
    if isinstance(error, redis.BusyLoadingError):
        return "Redis is loading its data"
    if isinstance(error, redis.OutOfMemoryError) or "-OOM " in text:
        return "Redis' memory is full: raise maxmemory, or lower window or byte_budget"
    if FULL in text:
        return f"Redis takes no more connections: {MORE}"
    if isinstance(error, redis.ReadOnlyError) or "-READONLY " in text:
        return "Redis is a replica and takes no writes: give the address of its master, or a sentinel:// one"
    if is_forbidden(error):
        return f"Redis does not allow this user what a pipeline needs ({error})"
    if isinstance(error, redis.ResponseError):
        return f"Redis refuses ({error})"
    return f"Redis does not answer ({error})"


def is_forbidden(error: BaseException) -> bool:
    """May this user of Redis not do what was asked? That stays so."""
    in_script = isinstance(error, redis.ResponseError) and (
        "NOPERM" in str(error) or "executing the script" in str(error)
    )
    return in_script or isinstance(error, redis.exceptions.NoPermissionError)


def _is_refused(address: Address, error: BaseException) -> bool:
    """Did one side refuse the other's certificate? That stays so, unlike most trouble with connections.

    With TLS 1.3 a server that misses a certificate may just close the connection.
    """
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    told = any(isinstance(each, ssl.SSLError) and not isinstance(each, ssl.SSLEOFError) for each in causes)
    gone = (ssl.SSLEOFError, ConnectionResetError, BrokenPipeError)
    closed = "closed by server" in str(error) or any(isinstance(each, gone) for each in causes)
    return told or (closed and address.tls is not None and address.tls.certfile is None)
