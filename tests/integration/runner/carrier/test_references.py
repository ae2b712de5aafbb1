"""Large payloads between warped nodes: they stay where they are, and what is lost on the way is made again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from celerypipe import Pipeline, Runner, codec
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.redis.connection import Client, connect
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import SIZE, chain, frames
from tests.runs.reading import Reading
from tests.runs.traces import memory_of
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.command import start
from tests.servers.extent import at_length


@pytest.mark.parametrize("shared", [True, False])
def test_a_body_does_not_come_back_to_the_runner_between_warped_nodes(
    shared_worker: StartWorker, redis_url: str, shared: bool
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    source = NodeDefinition(name="source", type="source", mark="tests.nodes.remote.Frames")
    source = source.model_copy(update={"configuration": {"count": 20, "size": SIZE}})
    pipeline = chain("tsolo", "Large", "Large", "Echo", before=(source,))
    report = Runner(redis_url, shared_memory=shared).run(pipeline)
    received = {node.name: (node.received, node.bytes) for node in report.nodes}
    assert [received[name][0] for name in ("n0", "n1", "n2")] == [20, 20, 20]
    assert 20 * SIZE < received["n0"][1] < 21 * SIZE  # in; out it stays where it is
    assert 20 * SIZE < received["n1"][1] < 21 * SIZE
    assert 40 * SIZE < received["n2"][1] < 41 * SIZE  # out too: here the chain ends, and somebody may read it


@pytest.mark.parametrize("shared", [True, False])
def test_what_comes_out_of_a_chain_is_exact(shared_worker: StartWorker, redis_url: str, shared: bool) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url, shared_memory=shared)
    stream = runner.stream(chain("tsolo", "Large", "Echo", "Large"), frames(50))
    outputs = [next(stream)]
    memory = memory_of(runner)
    assert memory.exists() == shared
    outputs += stream  # all are kept until the end
    assert [(int(m.payload.min()), int(m.payload.max())) for m in outputs] == [
        (4 * n % 256, 4 * n % 256) for n in range(50)
    ]
    assert [m.sequence for m in outputs] == list(range(50))
    assert all(m.creator == "n2" and m.meta["pid"] != os.getpid() for m in outputs)
    assert not memory.exists()


def test_an_array_that_a_node_keeps_stays_as_it_was(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    outputs = [m.payload for m in Runner(redis_url).stream(chain("tsolo", "Hoard"), frames(300))]
    kept = outputs[0][0]  # a warm instance may know it from a run before
    assert outputs == [(kept, kept, number % 100) for number in range(300)]


@pytest.mark.parametrize("shared", [pytest.param(True, marks=at_length), False])
def test_a_lost_payload_is_made_again_by_running_its_parents(
    start_worker: StartWorker, private_redis: RedisServer, shared: bool
) -> None:
    start_worker("lossy", url=private_redis.url, pool="solo", config=CONFIG)
    slow = {"configuration": {"delay": 0.01}}
    pipeline = chain("lossy", "Large", "Large", "Echo", n2=slow)
    runner = Runner(private_redis.url, shared_memory=shared)
    reading = Reading(runner.stream(pipeline, frames(150)))
    reading.wait_for(20)
    assert lose_shared(runner) if shared else lose_stored(private_redis)
    assert [int(array[0]) for array in reading.payloads()] == [4 * (number % 100) % 256 for number in range(150)]


def lose_stored(server: RedisServer) -> int:
    with connect(server.url) as client:
        names = list(client.scan_iter("celerypipe:blob:*", count=1000))
        return int(client.delete(*names))


def lose_shared(runner: Runner) -> int:
    files = [path for path in memory_of(runner).iterdir() if path.is_file() and path.name != "lock"]
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def test_a_worker_that_shares_no_memory_gets_everything_through_redis(
    start_worker: StartWorker, redis_url: str, redis_client: Client
) -> None:
    start_worker("apart", pool="solo", config=CONFIG, env={"CELERYPIPE_SHARED_MEMORY": "no"})
    runner = Runner(redis_url)
    stream = runner.stream(chain("apart", "Large"), frames(30))
    assert int(next(stream).payload[0]) == 0
    assert not memory_of(runner).exists()
    assert [int(message.payload[0]) for message in stream] == [2 * number for number in range(1, 30)]


def test_a_worker_that_joins_and_shares_no_memory_ends_the_sharing(start_worker: StartWorker, redis_url: str) -> None:
    start_worker("both", pool="solo", config=CONFIG)
    pipeline = chain("both", "Echo", n0={"configuration": {"delay": 0.02}})
    runner = Runner(redis_url)
    reading = Reading(runner.stream(pipeline, frames(500)))
    reading.wait_for(5)
    assert memory_of(runner).exists()
    late = start_worker("both", pool="solo", config=CONFIG, env={"CELERYPIPE_SHARED_MEMORY": "no"})
    arrays = reading.payloads()
    assert [int(array[0]) for array in arrays] == [number % 100 for number in range(500)]
    assert late.presence["pid"] in {message.meta["pid"] for message in reading.out}


def test_a_dead_letter_of_the_second_node_has_its_payload(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = chain("tsolo", "Large", "Nap", folder=str(tmp_path), n1={"on_error": "dead_letter"})
    assert list(Runner(redis_url).stream(pipeline, frames(40))) == []  # nobody sleeps for an array of seconds
    letters = [codec.decode(file.read_bytes())[0] for file in (tmp_path / "dead_letters").glob("*.message")]
    found = {letter.sequence: (letter.payload.shape, {*letter.payload.tolist()}) for letter in letters}
    assert found == {number: ((SIZE,), {2 * number}) for number in range(40)}
    assert all(letter.creator == "n0" for letter in letters)


RUNNER = """
import sys
from celerypipe import Runner
from tests.runs.pipelines import chain, frames
from tests.runs.traces import run_of
pipeline = chain(sys.argv[2], "Echo", n0={"configuration": {"delay": 0.05}})
runner = Runner(sys.argv[1])
for message in runner.stream(pipeline, frames(1000)):
    print("run", run_of(runner), flush=True)
"""


def test_what_a_killed_runner_left_in_memory_is_removed_by_the_next(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    runner = start("-c", RUNNER, redis_url, "tsolo")
    memory = memory_of(runner.wait_for("run "))
    assert memory.exists()
    runner.kill()
    assert memory.exists()
    os.utime(memory / "lock", (0, 0))  # of the last second none is removed: it may be about to be locked
    assert len(list(Runner(redis_url).stream(chain("tsolo", "Large"), frames(3)))) == 3
    assert not memory.exists()


@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=at_length)])
def test_a_node_that_nobody_serves_runs_here_also_behind_a_warped_one(
    shared_worker: StartWorker, redis_url: str, shared: bool
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = chain("tsolo", "Large", "Large")
    away = NodeDefinition(
        name="n1",
        type="proc",
        mark="tests.nodes.remote.Large",
        warped=True,
        warp_configuration={"queue": "nobody-here", "on_no_worker": "local"},
    )
    pipeline = Pipeline(name="chain", nodes=[pipeline.nodes[0], away], links=[("n0", "n1")])
    outputs = Runner(redis_url, shared_memory=shared).stream(pipeline, frames(200))
    assert [int(message.payload[0]) for message in outputs] == [4 * (number % 100) % 256 for number in range(200)]


def test_parts_of_a_large_result_do_not_each_travel_as_the_whole(
    start_worker: StartWorker, private_redis: RedisServer
) -> None:
    start_worker("parts", url=private_redis.url, pool="solo", config=CONFIG)
    with connect(private_redis.url) as client:
        before = int(client.info("stats")["total_net_output_bytes"])
        runner = Runner(private_redis.url, shared_memory=False)
        outputs = list(runner.stream(chain("parts", "Cut", "Echo"), frames(2, 8_000_000)))
        sent = int(client.info("stats")["total_net_output_bytes"]) - before
    assert [(len(m.payload), {*m.payload.tolist()}) for m in outputs] == [
        (80_000, {n}) for n in (0, 1) for _ in range(100)
    ]
    assert sent < 10 * 2 * 8_000_000  # 200 times the whole would be 1,600 MB


def test_a_connection_that_the_server_closed_meanwhile_costs_nothing(
    start_worker: StartWorker, private_redis: RedisServer
) -> None:
    worker = start_worker("stale", url=private_redis.url, pool="solo", config=CONFIG)
    runner = Runner(private_redis.url)
    assert len(list(runner.stream(chain("stale", "Echo"), frames(1)))) == 1
    with connect(private_redis.url) as client:
        eventually(lambda: "succeeded" in worker.text(), "the end of the activation")
        closed = [each["id"] for each in client.client_list() if each["name"] == "celerypipe-activation"]
        for each in closed:
            client.client_kill_filter(_id=each)
    assert closed
    assert len(list(runner.stream(chain("stale", "Echo"), frames(1)))) == 1
    assert "broken off" not in worker.text()
