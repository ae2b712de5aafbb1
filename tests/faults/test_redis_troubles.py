"""Redis dies, refuses, loads, stands still, or the way to it breaks: every message once, in order, workers resume.

The short form takes one pool for each trouble, and seconds; CELERYPIPE_FAULTS=long takes all pools, and ten seconds.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celerypipe import Message, Runner
from celerypipe.connection import Client, connect
from tests.faults.test_worker_faults import Reading
from tests.integration.test_warp import CONFIG, POOLS, warped
from tests.proxy import Proxy
from tests.sentinels import MASTER, Watched
from tests.servers import RunningWorker, StartWorker, eventually
from tests.tuned_redis import TunedRedis

LONG = os.environ.get("CELERYPIPE_FAULTS") == "long"
#: Longer than the lease of a bell.
SECONDS = 10.0 if LONG else 3.5
#: Messages that follow when the trouble is over.
AFTER = 300

#: Append-only, written through: what was answered is there after a kill.
DURABLE = {"appendonly": "yes", "appendfsync": "always", "rdbcompression": "no"}


@pytest.fixture
def durable_redis() -> Iterator[TunedRedis]:
    """A Redis that keeps its data through a kill."""
    server = TunedRedis(settings=DURABLE).start()
    yield server
    server.remove()


def lasting(seconds: float = SECONDS) -> None:
    """Let a trouble last: how long it lasts is what is tested."""
    threading.Event().wait(seconds)


class Counted:
    """A run of numbered messages through one worker, which goes on for as long as the trouble, and what it said."""

    def __init__(self, url: str, queue: str, worker: RunningWorker, **options: Any) -> None:
        self.worker = worker
        self.url = url
        self.said: list[str] = []
        self.sent = 0
        self._over = threading.Event()
        self.pipeline = warped("tests.remote.Echo", queue, **{"configuration": {"delay": 0.002}, **options})
        self.reading = Reading(Runner(url, on_event=self.said.append).stream(self.pipeline, self._numbers()))
        self.reading.wait_for(200)

    def _numbers(self) -> Iterator[Message]:
        left = AFTER
        while left:
            yield Message(self.sent)
            self.sent += 1
            left -= self._over.is_set()

    def assert_all_once_in_order(self) -> None:
        """The trouble is over: everything arrives, and the same worker process takes a new bell: not dead, not deaf."""
        over, before = time.monotonic(), len(self.reading.out)
        self._over.set()
        self.reading.wait_for(before + 1)
        print(f"recovered within {time.monotonic() - over:.1f} s")  # a figure for docs/reliability.md
        assert self.reading.payloads() == list(range(self.sent)), self.worker.text()
        assert self.worker.process.poll() is None, self.worker.text()
        again = Reading(Runner(self.url).stream(self.pipeline, map(Message, range(20))))
        try:
            assert again.payloads() == list(range(20))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.worker.text()}") from None


def kill_and_restart_with_data(server: TunedRedis, client: Client) -> None:
    server.stop()
    lasting(1.0)
    server.start()


def load_for_a_while(server: TunedRedis, client: Client) -> None:
    """Come back at once, and answer LOADING to everything for seconds."""
    client.together(*[("SET", f"filler:{number}", "x" * 10_000, "EX", 1000) for number in range(1000)])
    client.call("BGREWRITEAOF")  # what is read as a snapshot can be read slowly
    eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "the end of rewriting")
    server.stop()
    server.start(wait=False, key_load_delay="3000" if LONG else "1500")  # microseconds a key
    eventually(lambda: "loading" in _state(server), "LOADING")
    eventually(server._answers, "the end of loading")


def _state(server: TunedRedis) -> str:
    try:
        with server.client() as client:
            client.ping()
    except Exception as error:  # noqa: BLE001  # what it says is the state
        return str(error).lower()
    return "up"


def stand_still(server: TunedRedis, client: Client) -> None:
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    lasting()
    os.kill(server.process.pid, signal.SIGCONT)


def pause_clients(server: TunedRedis, client: Client) -> None:
    client.call("CLIENT", "PAUSE", int(SECONDS * 1000))
    client.ping()  # answered when the pause is over


def run_out_of_memory(server: TunedRedis, client: Client) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1mb")
    lasting()
    client.config_set("maxmemory", "0")


def become_a_replica(server: TunedRedis, client: Client) -> None:
    client.call("REPLICAOF", "127.0.0.1", "1")
    lasting()
    client.call("REPLICAOF", "NO", "ONE")


def delete_the_mailbox(server: TunedRedis, client: Client) -> None:
    (mailbox,) = client.scan_iter("celerypipe:mailbox:*", count=1000)
    client.delete(mailbox)


def delete_the_replies(server: TunedRedis, client: Client) -> None:
    (replies,) = client.scan_iter("celerypipe:reply:*", count=1000)
    client.delete(replies)


TROUBLES = [
    (kill_and_restart_with_data, "Redis does not answer ("),
    (load_for_a_while, "Redis is loading its data"),
    (stand_still, ""),
    (pause_clients, ""),
    (run_out_of_memory, "its memory is full: raise maxmemory"),
    (delete_the_mailbox, ""),
    (delete_the_replies, ""),
    (become_a_replica, "it is a replica: give the address of its master"),
]
CASES = [
    pytest.param(harm, said, *pool, id=f"{harm.__name__}-{pool[0]}")
    for place, (harm, said) in enumerate(TROUBLES)
    for pool in (POOLS if LONG else [POOLS[place % len(POOLS)]])
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("harm", "said", "pool", "slots"), CASES)
def test_every_message_arrives_once_whatever_redis_does(
    start_worker: StartWorker,
    durable_redis: TunedRedis,
    harm: Callable[[TunedRedis, Client], None],
    said: str,
    pool: str,
    slots: int,
) -> None:
    worker = start_worker("trouble", url=durable_redis.url, pool=pool, concurrency=slots, config=CONFIG)
    counted = Counted(durable_redis.url, "trouble", worker)
    with durable_redis.client() as client:
        harm(durable_redis, client)
    counted.assert_all_once_in_order()
    assert any(said in line for line in counted.said) or not said, counted.said


def cut(proxy: Proxy) -> None:
    proxy.cut(refusing=False)


def cut_for_a_while(proxy: Proxy) -> None:
    proxy.cut(refusing=True)
    lasting()
    proxy.mend()


def throttle(proxy: Proxy) -> None:
    proxy.rate = 4000
    lasting()
    proxy.mend()


def swallow(proxy: Proxy) -> None:
    """As a firewall that forgot a connection: nothing comes, and nobody is told."""
    proxy.swallow()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("harm", [cut, cut_for_a_while, throttle, *([swallow] if LONG else [])])
@pytest.mark.parametrize(("pool", "slots"), POOLS if LONG else [("solo", 1)])
def test_every_message_arrives_once_over_a_bad_line(
    start_worker: StartWorker, durable_redis: TunedRedis, harm: Callable[[Proxy], None], pool: str, slots: int
) -> None:
    with Proxy(durable_redis.folder / "redis.sock") as proxy:
        worker = start_worker("line", url=proxy.url, pool=pool, concurrency=slots, config=CONFIG)
        counted = Counted(proxy.url, "line", worker)
        harm(proxy)
        counted.assert_all_once_in_order()
        worker.stop()


def test_a_large_payload_gets_over_a_slow_line(durable_redis: TunedRedis) -> None:
    """The timeout of a socket is for all of one write: what takes longer than that would be tried again for ever."""
    content = bytes(24 * 1024 * 1024)
    with Proxy(durable_redis.folder / "redis.sock") as proxy, connect(proxy.url, timeout=0.5) as client:
        assert client.call("PING") == b"PONG"
        proxy.rate = 10_000_000
        assert client.call("SET", "large", [content]) == b"OK"
    with durable_redis.client() as client:
        assert client.strlen("large") == len(content)


def test_a_worker_that_had_no_time_yet_to_say_that_it_lives_is_not_taken_for_dead(
    start_worker: StartWorker, durable_redis: TunedRedis
) -> None:
    worker = start_worker("slowly", url=durable_redis.url, pool="solo", config=CONFIG)
    counted = Counted(durable_redis.url, "slowly", worker, limits={"on_no_worker": "fail"})
    os.killpg(worker.process.pid, signal.SIGSTOP)
    with durable_redis.client() as client:
        client.flushall()  # also its presence
    lasting(3.5)  # a run decides about a queue without a worker after 1.5
    os.killpg(worker.process.pid, signal.SIGCONT)
    counted.assert_all_once_in_order()
    assert not any("no live worker" in line for line in counted.said), counted.said


def test_a_bell_whose_task_was_lost_is_rung_again(
    start_worker: StartWorker, durable_redis: TunedRedis, tmp_path: Path
) -> None:
    start_worker("lost", url=durable_redis.url, pool="solo", config=CONFIG)
    gate = tmp_path / "gate"
    pipeline = warped("tests.remote.Gate", "lost", limits={"slice": 0.05})
    busy = Reading(Runner(durable_redis.url).stream(pipeline, [Message(1), Message(str(gate))]))
    busy.wait_for(1)  # the only slot of the worker is taken now, so the next bell waits in the queue's list
    waiting = Reading(Runner(durable_redis.url).stream(pipeline, [Message(2)]))
    with durable_redis.client() as client:
        eventually(lambda: client.llen("lost"), "a task in the queue")
        client.delete("lost")
    gate.touch()
    assert waiting.payloads() == [2]
    assert busy.payloads() == [1, str(gate)]


def kill_the_master(watched: Watched) -> None:
    watched.servers[0].stop()


def demote_the_master(watched: Watched) -> None:
    """It lives on as a replica, with everybody connected to it."""
    watched.ask_sentinel("SENTINEL", "FAILOVER", MASTER)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("harm", [kill_the_master, demote_the_master])
@pytest.mark.parametrize(("pool", "slots"), POOLS if LONG else [("prefork", 2)])
def test_runs_and_workers_follow_a_failover(
    start_worker: StartWorker, harm: Callable[[Watched], None], pool: str, slots: int
) -> None:
    with Watched() as watched:
        worker = start_worker("over", url=watched.url, pool=pool, concurrency=slots, config=CONFIG)
        counted = Counted(watched.url, "over", worker)
        harm(watched)
        eventually(lambda: b"master" in watched.ask(1, "ROLE"), "the promotion of the replica")
        counted.assert_all_once_in_order()
        assert not any(secret in worker.text() for secret in (watched.password, watched.own))
        worker.stop()
