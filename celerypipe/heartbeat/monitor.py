"""The process that gives the heartbeat: it watches a worker or a runner, and tells Redis whether it lives.

It is a script (``python -I -S``), started by exec, so that it shares no interpreter lock with what it watches. It needs
the standard library only, and of that little: bare sockets, and ssl only where Redis wants it. What it knows comes
through its standard input, so that no secret is seen in ``ps``: a plan, then a line for each process besides the one
that started it, ``+<pid>``. It ends with the process that started it, or when it is told to: ``end``, or ``leave``, as
if that had ended.

The plan, as marshal writes it, behind four bytes with its length: ``boss``, that process; ``endpoint``, where Redis is
(:mod:`celerypipe.redis.endpoint`); and commands: ``beat``, sent each second, in which None stands for the processes
that live; ``full``, sent instead when Redis' memory is full; ``last``, for the end of the boss; and ``kin``: with the
boss, all that comes of it is ended.

A process that is stopped (SIGSTOP, a debugger) does not count as living, since nobody can tell when it goes on. With
the boss all others are ended that it started, and with each process its group, if it leads one.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal is made of; that costs 1 MB and several ms
import _socket
import marshal
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from celerypipe.heartbeat.kin import Kin, end_group
else:  # without its package, which nobody needs here
    sys.path.insert(0, os.path.dirname(__file__))
    from kin import Kin, end_group

#: Seconds between two beats.
BEAT = 1.0
#: Seconds until Redis is tried again, and for a connection to be there; for one of the Sentinels, which are asked
#: one after the other.
RETRY, CONNECT, ASK = 0.5, 3.0, 1.0
#: Seconds without an answer after which a line counts as dead.
SILENCE = 3.0
#: Seconds without a beat that arrived after which that is said.
UNHEARD = 10.0
#: Seconds for the other processes to end.
FAREWELL = 1.0
#: States in /proc in which a process does nothing: stopped, traced, a zombie, gone.
STILL = b"TtZX"


class ErrorReply(OSError):
    """Redis answered with an error."""


class Watched:
    """A process that is watched. ``boss``: who started it; 0: it is the boss itself."""

    def __init__(self, pid: int, boss: int = 0) -> None:
        self.pid = pid
        self.boss = boss
        #: May it be killed, and its group? Not the boss, whose group may have others in it; and to the numbers 0 and 1
        #: kill and killpg give another meaning.
        self.ours = boss > 0 and pid > 1
        self.fd = -1  # where there are no pidfds it is asked for each second
        self.gone = False
        try:
            self.fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.gone = True
        except (AttributeError, OSError):  # another system, a kernel before 5.3, or a container that forbids it
            pass
        if self.gone or not self._is_there():  # too late: nobody knows whose number that is now
            self.gone, self.ours = True, False

    def _is_there(self) -> bool:
        if not self.boss:
            return os.getppid() == self.pid
        about = status(self.pid)
        return about is None or about[1] == self.boss

    def look(self) -> bool:
        """See how it is; return whether it runs."""
        if self.gone:
            return False
        about = status(self.pid)
        state = about[0] if about is not None else b"R"
        try:
            if self.fd < 0:
                os.kill(self.pid, 0)
                if not self._is_there():  # the number is another's by now
                    self.gone, self.ours = True, False
                self.gone = self.gone or state in b"ZX"
        except ProcessLookupError:
            self.gone = True
        except PermissionError:  # it runs, as somebody else
            pass
        return not self.gone and state not in STILL

    def end(self) -> None:
        """Kill it, and the group that it leads, if it leads one."""
        if not (self.ours and end_group(self.pid)):  # it leads none
            self._kill()

    def _kill(self) -> None:
        try:
            if self.fd >= 0:
                _signal.pidfd_send_signal(self.fd, _signal.SIGKILL)
            elif not self.gone:
                os.kill(self.pid, _signal.SIGKILL)
        except OSError:
            pass

    def close(self) -> None:
        """It is gone: kill what is left of its group."""
        self.gone = True
        self.end()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def status(pid: int) -> tuple[bytes, int] | None:
    """Return state and parent of a process; None where /proc does not say."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        state, parent = os.read(file, 1024).rpartition(b")")[2].split()[:2]
        return state, int(parent)
    except (OSError, ValueError):
        return None
    finally:
        os.close(file)


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
    """A connection to Redis, made anew whenever it breaks. ``socket`` is None while there is none."""

    def __init__(self, endpoint: dict[str, Any]) -> None:
        self._endpoint = endpoint
        self.socket: Any = None
        self._owed = 0
        self._heard = 0.0
        self._rest = b""

    def send(self, data: bytes, count: int) -> None:
        """Send so many commands, and first, on a new line, who we are; OSError: that did not work."""
        if self._owed and time.monotonic() - self._heard > SILENCE:
            self.close()  # nobody is there, or Redis stands still; what was sent is not lost to that
        if self.socket is None:
            self.socket = self._connected()
            greeting = self._greeting()
            data, count = packed(greeting) + data, count + len(greeting)
        if not self._owed:
            self._heard = time.monotonic()
        self._owed += count
        self.socket.sendall(data)

    def receive(self) -> bool:
        """Take the answers that are there; True: all came. :class:`ErrorReply`: one was an error; OSError: it broke."""
        try:
            found = self.socket.recv(4096)
        except TimeoutError:  # a part of what TLS sends
            return False
        if not found:
            raise ConnectionError("closed")
        *answers, self._rest = (self._rest + found).split(b"\r\n")
        self._heard = time.monotonic()
        self._owed -= len(answers)
        for answer in answers:
            if answer.startswith(b"-"):
                raise ErrorReply(answer[1:].decode("utf-8", "replace"))
        return self._owed <= 0

    def close(self) -> None:
        """Let go of it."""
        if self.socket is not None:
            self.socket.close()
        self.socket, self._owed, self._rest = None, 0, b""

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


class Monitor:
    """Watches, and beats."""

    def __init__(self, plan: dict[str, Any], told: int) -> None:
        """``told``: the file that says which other processes there are."""
        self._plan = plan
        self._wire = Wire(plan["endpoint"])
        self.boss = Watched(plan["boss"])
        self.others: dict[int, Watched] = {}
        self._told = told
        self._rest = b""
        self._next = 0.0
        self._full = False
        self._said: set[str] = set()
        self._heard = time.monotonic()
        self._kin: Kin | None = None

    def run(self) -> None:
        """Beat until the boss is gone, or says that this is to end."""
        os.set_blocking(self._told, False)
        while not self.boss.gone:
            match self._wait(max(0.0, self._next - time.monotonic())):
                case b"end":
                    return
                case b"leave":
                    break
            if time.monotonic() >= self._next:
                self._beat()
                self._look()
        self._farewell()

    def _wait(self, seconds: float) -> bytes:
        """Wait until something happens; return how this is to end, if it is."""
        poll = select.poll()
        watched = {each.fd: each for each in (self.boss, *self.others.values()) if each.fd >= 0}
        wire = self._wire.socket.fileno() if self._wire.socket is not None else -1
        for fd in (*watched, wire, self._told):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(1000 * seconds):
            if fd in watched:
                self._ended(watched[fd])
            elif fd == wire:
                self._receive()
            elif said := self._listen():
                return said
        return b""

    def _ended(self, one: Watched) -> None:
        one.close()
        self.others.pop(one.pid, None)

    def _listen(self) -> bytes:
        """Hear of other processes; return how this is to end, if it is."""
        try:
            found = os.read(self._told, 4096)
        except BlockingIOError:
            return b""
        if not found:
            self._told = -1
        *lines, self._rest = (self._rest + found).split(b"\n")
        for line in lines:
            if not line.startswith(b"+"):
                return line
            one = Watched(int(line[1:]), self.boss.pid)
            if one.gone:
                one.close()
            else:
                self.others[one.pid] = one
                self._next = 0.0
        return b""

    def _beat(self) -> None:
        self._next = time.monotonic() + BEAT
        running = [one.pid for one in (self.boss, *self.others.values()) if one.look()]
        for one in [one for one in self.others.values() if one.gone]:
            self._ended(one)
        beat = self._plan["full" if self._full else "beat"]
        self._full = False
        if self.boss.gone or not (running or None in beat[0]):
            return
        try:
            self._wire.send(packed(beat, b"".join(b" %d " % pid for pid in running)), len(beat))
        except OSError as error:
            self._broken(error)

    def _look(self) -> None:
        """See what came of the boss, which is known of nobody once it is gone."""
        if self._plan["kin"] and sys.platform == "linux":
            self._kin = self._kin or Kin(self.boss.pid)
            self._kin.look()

    def _receive(self) -> None:
        try:
            if self._wire.receive():
                self._heard = time.monotonic()
                self._said.discard("silence")
        except ErrorReply as refusal:
            self._refused(refusal)
        except OSError as error:
            self._broken(error)

    def _refused(self, refusal: ErrorReply) -> None:
        """Redis has no room (what is there can still live on), is no master any more, or lets us do nothing."""
        kind = str(refusal).partition(" ")[0]
        if kind == "OOM":
            self._full = True
            self._next = min(self._next, time.monotonic() + RETRY)
            return
        if kind not in ("LOADING", "READONLY", "MASTERDOWN"):
            self._say(kind, f"Redis refuses the heartbeat of process {self.boss.pid}: {refusal}")
        self._broken(refusal)

    def _broken(self, error: OSError) -> None:
        """Try again, and say so once if that goes on: others take the boss for dead."""
        self._wire.close()
        self._next = time.monotonic() + RETRY
        if time.monotonic() - self._heard > UNHEARD:
            self._say("silence", f"no heartbeat of process {self.boss.pid} reaches Redis: {error}")

    def _say(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            sys.stderr.write(f"celerypipe: {text}\n")

    def _farewell(self) -> None:
        """The boss is gone: so are the processes that it started; then say so."""
        for one in self.others.values():
            one.end()
        if self._kin is not None:
            self._kin.end()
        until = time.monotonic() + FAREWELL
        while self.others and time.monotonic() < until:
            self._told = -1
            self._wait(0.05)
            for one in list(self.others.values()):
                one.look()
                if one.gone:
                    self._ended(one)
        for one in self.others.values():
            one.close()
        _ = self._said_last() or self._said_last()  # on a new line, if the old one broke

    def _said_last(self) -> bool:
        last = self._plan["last"]
        try:
            self._wire.send(packed(last), len(last))
            while not self._wire.receive():
                pass
        except OSError:
            self._wire.close()
            return False
        return True


def exactly(size: int) -> bytes:
    """Read so many bytes from standard input."""
    found = b""
    while len(found) < size:
        more = os.read(0, size - len(found))
        if not more:
            raise SystemExit(0)  # who started this is gone
        found += more
    return found


def main() -> None:
    """Do what standard input says."""
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_IGN)  # it ends with its boss, which may still have things to do
    plan = marshal.loads(exactly(int.from_bytes(exactly(4), "big")))  # noqa: S302  # of whom it ends with
    Monitor(plan, 0).run()


if __name__ == "__main__":
    main()
