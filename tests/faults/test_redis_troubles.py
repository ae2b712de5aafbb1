"""Redis dies, refuses, loads, stands still or loses keys: every message once, in order, workers resume."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from celerypipe import Message, Runner
from celerypipe.redis.connection import Client
from tests.nodes.remote import CONFIG
from tests.runs.counted import AGAIN, SECONDS, Counted, lasting
from tests.runs.metrics import outcomes
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import POOLS, StartWorker, eventually
from tests.servers.extent import LONG
from tests.servers.redis import TunedRedis


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
    server.freeze(SECONDS)


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
    *([(stand_still, ""), (pause_clients, "")] if LONG else []),
    (run_out_of_memory, "Redis' memory is full: raise maxmemory"),
    (delete_the_mailbox, ""),
    (delete_the_replies, ""),
    (become_a_replica, "Redis is a replica and takes no writes: give the address of its master"),
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
    assert outcomes(durable_redis.url, "trouble") == {"done": counted.sent + AGAIN}
    assert any(said in line for line in counted.said) or not said, counted.said


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
    pipeline = warped("tests.nodes.remote.Gate", "lost", limits={"slice": 0.05})
    busy = Reading(Runner(durable_redis.url).stream(pipeline, [Message(1), Message(str(gate))]))
    busy.wait_for(1)  # the only slot of the worker is taken now, so the next bell waits in the queue's list
    waiting = Reading(Runner(durable_redis.url).stream(pipeline, [Message(2)]))
    with durable_redis.client() as client:
        eventually(lambda: client.llen("lost"), "a task in the queue")
        client.delete("lost")
    gate.touch()
    assert waiting.payloads() == [2]
    assert busy.payloads() == [1, str(gate)]
