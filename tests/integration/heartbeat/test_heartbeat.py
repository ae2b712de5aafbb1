"""The heartbeat of a worker: which of its processes it names, whatever befalls them, Redis, or itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from celerypipe.errors import ConfigError
from celerypipe.heartbeat import heartbeat as starting
from celerypipe.heartbeat.heartbeat import Heartbeat
from celerypipe.mailbox import liveness
from celerypipe.mailbox.deaths import Death, death_of, say_death
from celerypipe.mailbox.holder import Process
from celerypipe.redis import keys
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Client, connect
from celerypipe.redis.url import read_address
from tests.servers import ROOT, RedisServer, eventually
from tests.servers.certificates import Authority, Door
from tests.servers.port import free_port
from tests.servers.processes import alive, command_line, monitors_of
from tests.servers.redis import TunedRedis
from tests.servers.sentinels import Watched

#: A process that does nothing, in a group of its own with one that it started and forgot.
LEADER = "import os, subprocess; os.setpgid(0, 0); print(subprocess.Popen(['sleep', '600']).pid, flush=True); input()"


class Beating:
    """A worker, which is this process, and what Redis is told of it."""

    def __init__(self, url: str, life: str) -> None:
        self.process = Process("host", os.getpid(), life)
        self.client = connect(url)
        self.heartbeat = Heartbeat(read_address(url), liveness.words(keys.USUAL, self.process))
        self.heartbeat.start()
        self.children: list[subprocess.Popen[str]] = []

    @property
    def named(self) -> set[int]:
        """The processes that are named now; empty if it is over, or nothing is heard."""
        text = self.client.get(keys.USUAL.heartbeat("host", self.process.life)) or b""
        return {int(pid) for pid in text.split() if pid.isdigit()}

    @property
    def revision(self) -> str:
        """What it says of what stands."""
        return liveness.revision_in(self.client.get(keys.USUAL.heartbeat("host", self.process.life)))

    def wait_for(self, *pids: int) -> None:
        """Wait until just these are named."""
        eventually(lambda: self.named == set(pids), f"a heartbeat that names {pids}")

    def child(self, code: str = "input()") -> subprocess.Popen[str]:
        """Start a process, and say so."""
        one = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.children.append(one)
        self.heartbeat.watch(one.pid)
        return one

    def close(self) -> None:
        self.heartbeat.end(last=True)
        for child in self.children:
            child.kill()
            child.communicate()
        self.client.close()


@pytest.fixture
def beating(redis_url: str) -> Iterator[Beating]:
    """One at the Redis of the session."""
    made = Beating(redis_url, "11aa")
    yield made
    made.close()


def test_what_stands_is_said_when_it_is_told_and_again_where_it_is_gone(private_redis: RedisServer) -> None:
    beating = Beating(private_redis.url, "12ac")
    there, large = keys.USUAL.presence(str(beating.process)), "x" * 300_000  # more than a pipe holds

    def stands(text: str) -> None:
        def there_now() -> bool:
            try:
                return beating.client.get(there) == text.encode()
            except redis.RedisError:
                return False

        eventually(there_now, "what stands")

    try:
        for text in ("first", large):
            beating.heartbeat.say([("SET", there, text), ("SET", "here", None)], text[:5])
            stands(text)
            eventually(lambda said=text[:5]: beating.revision == said, "the revision of what stands")
            now = float(beating.client.get("here") or 0)
            assert abs(now - time.time()) < 60, "it is the time where it is said"
            beating.client.flushall()
            stands(text)
            beating.wait_for(os.getpid())
            os.kill(beating.heartbeat.pid, signal.SIGKILL)
            beating.client.flushall()
            stands(text)
            eventually(lambda said=text[:5]: beating.revision == said, "its revision, which another process says now")
        private_redis.stop()
        private_redis.start()
        stands(large)
    finally:
        beating.close()


def test_it_names_what_lives_and_runs(beating: Beating) -> None:
    me, child = os.getpid(), beating.child().pid
    beating.wait_for(me, child)
    os.kill(child, signal.SIGSTOP)  # nobody can tell when it goes on
    beating.wait_for(me)
    os.kill(child, signal.SIGCONT)
    beating.wait_for(me, child)
    os.kill(child, signal.SIGKILL)
    beating.wait_for(me)
    starter = subprocess.Popen([sys.executable, "-c", LEADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    stranger = int(starter.stdout.readline())
    beating.heartbeat.watch(stranger)  # what this process did not start is not its business, and lives on
    other = beating.child().pid
    beating.wait_for(me, other)
    assert alive(stranger)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.communicate()


def test_who_says_that_it_ends_was_killed_by_no_message(redis_url: str) -> None:
    """One of them may be left with it, since a line broke before it was handed back."""
    ending = Beating(redis_url, "22bb")
    ending.wait_for(os.getpid())
    ending.heartbeat.end(last=True)
    with connect(redis_url) as client:
        say_death(client, str(ending.process), Death(-signal.SIGKILL))  # who sees it end says so too, and knows less
        assert death_of(client, f"host.{os.getpid()}.token-22bb-33cc.0") == Death(os.EX_OK, told=True)
    ending.client.close()


def test_another_one_takes_its_place_and_knows_all_that_it_knew(beating: Beating) -> None:
    child = beating.child().pid
    beating.wait_for(os.getpid(), child)
    first = beating.heartbeat.pid
    beating.heartbeat.start()  # which it has
    assert beating.heartbeat.pid == first
    os.kill(first, signal.SIGTERM)  # what ends all of a service tells it too; it has to stay until the end
    os.kill(first, signal.SIGKILL)
    eventually(lambda: beating.heartbeat.pid != first, "another one")
    beating.client.delete(keys.USUAL.heartbeat("host", beating.process.life))
    beating.wait_for(os.getpid(), child)
    second = beating.heartbeat.pid
    os.kill(second, signal.SIGSTOP)  # nobody else is stopped
    eventually(lambda: beating.heartbeat.pid != second, "one in the place of that")
    assert not alive(second)
    beating.client.delete(keys.USUAL.heartbeat("host", beating.process.life))
    beating.wait_for(os.getpid(), child)


def test_one_that_ends_is_replaced_where_a_stop_cannot_be_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.waitid")
    heartbeat = Heartbeat(Address("127.0.0.1", 1), liveness.words(keys.USUAL, Process("host", os.getpid(), "12ab")))
    heartbeat.start()
    first = heartbeat.pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: heartbeat.pid not in (0, first), "one in the place of that")
    heartbeat.end(last=False)


def test_with_a_process_its_group_ends_if_it_leads_one(beating: Beating) -> None:
    child = beating.child(LEADER)
    assert child.stdout is not None
    forgotten = int(child.stdout.readline())
    beating.wait_for(os.getpid(), child.pid)
    child.kill()
    eventually(lambda: not alive(forgotten), "the end of what it started")


def test_no_secret_is_seen_in_the_list_of_processes(beating: Beating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERYPIPE_REDIS_URL", "redis://:s3cret@nowhere/0")
    other = Heartbeat(
        Address("127.0.0.1", 1, password="s3cret"), liveness.words(keys.USUAL, Process("host", os.getpid(), "11ab"))
    )
    other.start()
    eventually(lambda: command_line(other.pid).endswith("monitor.py\0"), "its command line")
    assert "s3cret" not in command_line(other.pid)
    assert b"s3cret" not in Path(f"/proc/{other.pid}/environ").read_bytes()
    other.end(last=False)


WORKER = """
import os, subprocess, sys, threading
from celerypipe.heartbeat.heartbeat import Heartbeat
from celerypipe.mailbox import liveness
from celerypipe.mailbox.deaths import Death, death_of, say_death
from celerypipe.mailbox.holder import Process
from celerypipe.redis import keys
from celerypipe.redis.url import read_address
url, leader = sys.argv[1:]
process = Process("host", os.getpid(), "11ac")
heartbeat = Heartbeat(read_address(url), liveness.words(keys.USUAL, process, [("DEL", "celerypipe:worker:test")]))
heartbeat.start()
children = [subprocess.Popen([sys.executable, "-c", leader], stdin=subprocess.PIPE, stdout=subprocess.PIPE)]
children.append(subprocess.Popen(["sleep", "600"]))
for child in children:
    heartbeat.watch(child.pid)
print(os.getpid(), *[child.pid for child in children], int(children[0].stdout.readline()), heartbeat.pid, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("how", ["the worker", "its group"])
def test_a_whole_worker_that_is_killed_is_over_at_once_and_so_is_all_that_it_started(
    redis_url: str, redis_client: Client, how: str
) -> None:
    redis_client.set("celerypipe:worker:test", "there", px=60_000)
    command = [sys.executable, "-c", textwrap.dedent(WORKER), redis_url, LEADER]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as worker:
        assert worker.stdout is not None
        pids = [int(pid) for pid in worker.stdout.readline().split()]
        name = keys.USUAL.heartbeat("host", "11ac")
        eventually(lambda: all(b" %d " % pid in (redis_client.get(name) or b"") for pid in pids[:3]), "its heartbeat")
        (os.kill if how == "the worker" else os.killpg)(worker.pid, signal.SIGKILL)
    eventually(lambda: redis_client.get(name) == b"over", "word of its end")
    assert not redis_client.exists("celerypipe:worker:test")
    eventually(lambda: not any(map(alive, pids)), "the end of its processes, and of the one that told of it")
    redis_client.delete(name)


# -- Redis ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tuned() -> Iterator[TunedRedis]:
    """A Redis with a password that listens to TCP too."""
    server = TunedRedis(settings={"port": str(free_port())}).start()
    yield server
    server.remove()


def test_it_finds_redis_wherever_that_is_and_after_it_was_away(
    tuned: TunedRedis, capfd: pytest.CaptureFixture[str]
) -> None:
    port = tuned.settings["port"]
    with tuned.client() as admin:
        admin.execute_command("ACL", "SETUSER", "me", "on", ">p@ss", "allkeys", "allcommands")
        admin.config_set("requirepass", "w0rd")
    urls = [
        f"redis://:w0rd@127.0.0.1:{port}/3",
        f"redis://me:p%40ss@localhost:{port}",
        f"unix://:w0rd@{tuned.folder}/redis.sock?db=2",
    ]
    made = [Beating(url, f"22b{number}") for number, url in enumerate(urls)]
    for one in made:
        one.wait_for(os.getpid())
    tuned.stop()
    tuned.start(requirepass="w0rd", wait=False)
    for one in made[::2]:
        eventually(lambda one=one: _answers(one), "Redis")
        one.wait_for(os.getpid())
    refused = f"celerypipe: Redis refuses the heartbeat of process {os.getpid()}: WRONGPASS"
    said: list[str] = []
    # Of the user, who is gone with the memory.
    eventually(lambda: said.append(capfd.readouterr().err) or refused in "".join(said), "word of the refusal")
    assert "p@ss" not in "".join(said)
    for one in made:
        one.heartbeat.end(last=False)
        one.client.close()


def _answers(one: Beating) -> bool:
    try:
        return bool(one.client.ping())
    except redis.ConnectionError:  # not yet
        return False


def test_it_lives_on_in_a_redis_that_is_full(private_redis: RedisServer) -> None:
    made = Beating(private_redis.url, "33cc")
    made.wait_for(os.getpid())
    name = keys.USUAL.heartbeat("host", "33cc")
    made.client.config_set("maxmemory", 1)
    for _ in range(2):
        made.client.pexpire(name, keys.HEARTBEAT_TTL - 1_000)
        eventually(lambda: made.client.pttl(name) > keys.HEARTBEAT_TTL - 1_000, "one more beat")
    made.client.config_set("maxmemory", 0)
    made.close()


def test_it_speaks_tls_and_shows_its_certificate(private_redis: RedisServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    door = Door(authority, private_redis.folder / "redis.sock")
    pem, key = authority.sign("worker")
    files = f"ssl_ca_certs={authority.certificate}&ssl_certfile={pem}&ssl_keyfile={key}"
    made = Beating(f"rediss://localhost:{door.port}/0?{files}", "44dd")
    made.wait_for(os.getpid())
    made.close()
    door.close()


def test_it_asks_the_sentinels_and_follows_the_master() -> None:
    with Watched() as watched:
        made = Beating(watched.url, "55ee")
        made.wait_for(os.getpid())
        watched.servers[0].stop()
        watched.ask_sentinel("SENTINEL", "FAILOVER", "mymaster")
        eventually(lambda: watched.ask(1, "ROLE")[0] == b"master", "the promotion")
        watched.ask(1, "DEL", keys.USUAL.heartbeat("host", "55ee"))
        eventually(lambda: watched.ask(1, "EXISTS", keys.USUAL.heartbeat("host", "55ee")), "a beat there")
        made.heartbeat.end(last=False)
        made.client.close()


# -- a machine that lacks something -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lacks", ["pidfd", "proc", "both"])
def test_a_system_that_lacks_something_is_told_the_same_a_second_later(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    real = starting.SCRIPT
    script = tmp_path / "monitor.py"
    lines = ["import os, runpy"]
    if lacks != "proc":
        lines.append("del os.pidfd_open")
    if lacks != "pidfd":
        lines += ["real = os.open", "os.open = lambda path, *how: real(path.replace('/proc', '/nowhere'), *how)"]
    script.write_text("\n".join([*lines, f"runpy.run_path({str(real)!r}, run_name='__main__')"]))
    monkeypatch.setattr(starting, "SCRIPT", script)
    made = Beating(redis_url, "66ff")
    child = made.child(LEADER)
    assert child.stdout is not None
    forgotten = int(child.stdout.readline())
    made.wait_for(os.getpid(), child.pid)
    child.kill()
    child.wait()
    made.wait_for(os.getpid())
    eventually(lambda: not alive(forgotten), "the end of what it started")
    made.close()
    assert made.client.get(keys.USUAL.heartbeat("host", "66ff")) == b"over"


def test_where_no_process_can_be_started_that_is_said(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ConfigError, match=r"cannot start the heartbeat process: .*nowhere"):
        Heartbeat(read_address(redis_url), liveness.words(keys.USUAL, Process("host", os.getpid(), "77aa"))).start()


def test_who_begins_it_again_has_one(beating: Beating) -> None:
    """A runner does, for each function that is submitted to it."""
    first = beating.heartbeat.pid
    eventually(lambda: first in monitors_of(os.getpid()), "one that can be seen")
    before = set(monitors_of(os.getpid()))  # a run of another test may still end
    beating.heartbeat.start()
    assert beating.heartbeat.pid == first
    assert set(monitors_of(os.getpid())) <= before
