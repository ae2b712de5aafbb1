"""Workers and Redis die under calls: all of them come back, or say why not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from celerypipe import Runner, WorkerLost
from tests.nodes import called
from tests.nodes.called import CONFIG
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.command import start
from tests.servers.extent import at_length


def test_a_worker_killed_with_five_calls_in_hand(
    start_doomed: StartWorker, private_redis: RedisServer, tmp_path: Path
) -> None:
    first = start_doomed("calls", url=private_redis.url, pool="threads", concurrency=5, config=CONFIG)
    release = str(tmp_path / "release")
    with Runner(private_redis.url) as runner:
        calls = [runner.submit(called.gate, str(tmp_path / f"begun{n}"), release, n) for n in range(5)]
        eventually(lambda: all((tmp_path / f"begun{n}").exists() for n in range(5)), "five calls in hand")
        first.kill()
        Path(release).touch()
        start_doomed("calls", url=private_redis.url, pool="threads", concurrency=5, config=CONFIG)
        assert [call.result(40) for call in calls] == list(range(5))


def test_a_call_that_kills_its_process_is_lost_and_the_others_are_not(
    start_worker: StartWorker, private_redis: RedisServer
) -> None:
    start_worker("calls", url=private_redis.url, pool="prefork", concurrency=2, config=CONFIG)
    with Runner(private_redis.url) as runner:
        deadly = runner.submit(called.die)
        calls = [runner.submit(called.same, number) for number in range(100)]
        with pytest.raises(WorkerLost, match="die: the process that ran it died 3 times: killed by SIGKILL"):
            deadly.result(40)
        assert deadly.state == "lost"
        assert [call.result(40) for call in calls] == list(range(100))


@pytest.mark.parametrize(("pool", "slots"), [("prefork", 1), pytest.param("solo", 1, marks=at_length)])
def test_ten_minutes_cancelled_after_a_moment(
    start_worker: StartWorker, private_redis: RedisServer, pool: str, slots: int
) -> None:
    start_worker("calls", url=private_redis.url, pool=pool, concurrency=slots, config=CONFIG)
    with Runner(private_redis.url) as runner:
        call = runner.submit(called.nap, 600.0)
        eventually(call.running, "the call at work")
        call.cancel()
        assert call.cancelled()
        assert runner.submit(called.same, 1).result(30) == 1, "the same process is free"


@pytest.mark.parametrize("restarts", [True, pytest.param(False, marks=at_length)])
def test_redis_forgets_everything_in_the_middle(
    start_worker: StartWorker, private_redis: RedisServer, restarts: bool
) -> None:
    start_worker("calls", url=private_redis.url, pool="prefork", concurrency=2, config=CONFIG)
    with Runner(private_redis.url, shared_memory=False) as runner:
        large = [runner.submit(called.large, number) for number in range(4)]
        assert [call.exception(30) for call in large] == [None] * 4
        calls = [runner.submit(called.nap, 0.01, number) for number in range(300)]
        last = [runner.submit(called.add, one, two) for one, two in zip(large, calls[-4:], strict=True)]
        calls[20].result(30)
        if restarts:
            private_redis.restart_empty()
        else:
            private_redis.flush()
        assert [call.result(50) for call in calls] == list(range(300))
        assert [call.result(50)[0] for call in last] == [296.0, 298.0, 300.0, 302.0]
        assert [call.result(50)[0] for call in large] == [0.0, 1.0, 2.0, 3.0]


SCRIPT = """
import sys
from celerypipe import Runner
from tests.nodes import called

with Runner(sys.argv[1]) as runner:
    call = runner.submit(called.gate, sys.argv[2], sys.argv[3])
    print("submitted", flush=True)
    {then}
"""


@pytest.mark.parametrize("then", ["call.result()", "pass"])
def test_ctrl_c_ends_it_and_frees_the_worker(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Path, then: str
) -> None:
    start_worker("calls", url=private_redis.url, pool="prefork", concurrency=1, config=CONFIG)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(then=then))
    begun, never = tmp_path / "begun", tmp_path / "never"
    command = start(script, private_redis.url, begun, never)
    try:
        eventually(begun.exists, "the call at work")
        command.process.send_signal(signal.SIGINT)
    finally:
        ended = command.finish()
    assert ended.returncode == -signal.SIGINT
    assert ended.stderr.rstrip().endswith("KeyboardInterrupt")
    with Runner(private_redis.url) as runner:
        assert runner.submit(called.same, 1).result(30) == 1
