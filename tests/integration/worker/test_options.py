"""Celery's options for workers do what their users mean, though one task of Celery works on many messages."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.pool import EX_RECYCLE

from celerypipe import ConfigError, Message, Runner
from celerypipe.mailbox.deaths import Death, said_in
from celerypipe.redis.connection import Client
from celerypipe.worker.activation.quota import Limits
from celerypipe.worker.options import autoscale_option, limits_of, refuse, require_places
from tests.nodes import called
from tests.runs.pipelines import warped
from tests.servers import StartWorker, eventually
from tests.servers.extent import at_length


def processes(runner: Runner, count: int) -> list[int]:
    """The processes that so many messages were worked on by, in their order; all of them come in one read."""
    pipeline = warped("tests.nodes.remote.Echo", "options")
    out = list(runner.stream(pipeline, [Message(number) for number in range(count)]))
    assert [message.payload for message in out] == list(range(count))
    return [message.meta["pid"] for message in out]


CONFIG = 'imports = ["tests.nodes.remote", "tests.nodes.called"]\nworker_concurrency = 1\n'


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=at_length)])
def test_a_process_is_replaced_after_so_many_messages(
    start_worker: StartWorker, redis_url: str, redis_client: Client, method: str
) -> None:
    config = f'{CONFIG}worker_pool_start_method = "{method}"\n'
    worker = start_worker("options", config=config, arguments=["--max-tasks-per-child", "10"])
    found = Counter(processes(Runner(redis_url), 25))
    assert sorted(found.values()) == [5, 10, 10]
    assert worker.text().count("is replaced after 10 messages") == 2
    assert "Logging error" not in worker.text()
    for pid in (pid for pid, count in found.items() if count == 10):  # whatever it left behind, no message killed it
        (key,) = eventually(lambda pid=pid: list(redis_client.scan_iter(f"celerypipe:death:*.{pid}.*")), "its end")
        death = said_in(redis_client.get(key), Death)
        assert death is not None
        assert (death.status, death.told) == (EX_RECYCLE, True)


def test_memory_is_looked_at_after_each_message(start_worker: StartWorker, redis_url: str) -> None:
    worker = start_worker("options", config=f"{CONFIG}worker_max_memory_per_child = 1\n")
    assert len(set(processes(Runner(redis_url), 3))) == 3
    assert "is replaced after 1 messages, since it took " in worker.text()


def test_a_pool_grows_with_the_messages(start_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    worker = start_worker("calls", config=CONFIG, arguments=["--autoscale", "3,1"])
    assert worker.presence["slots"] == 3
    assert len(worker.presence["processes"]) == 1
    with Runner(redis_url) as runner:  # each of them ends when all are at work
        calls = [runner.submit(called.meet, number, str(tmp_path), 3) for number in range(3)]
        assert len({call.result(30) for call in calls}) == 3


def celerys(**options: Any) -> SimpleNamespace:
    """Celery's worker, as far as it is looked at."""
    names = ("purge", "time_limit", "soft_time_limit", "max_tasks_per_child", "max_memory_per_child")
    return SimpleNamespace(**{**dict.fromkeys(names), "options": {}, **options})


def settle(pool: str, autoscale: Any = None, **options: Any) -> Limits:
    refuse(celerys(**options), pool, autoscale_option(autoscale))
    return limits_of(celerys(**options), pool)


@pytest.mark.parametrize(
    ("pool", "options", "why"),
    [
        ("gevent", {}, "-P gevent: nodes run on prefork, solo or threads; .* write -P threads -c 100"),
        ("prefork", {"purge": True}, "--purge .* `celerypipe cancel RUN`"),
        ("prefork", {"options": {"beat": True}}, "-B: Celery schedules nothing here; start pipelines by cron"),
        ("prefork", {"time_limit": 5.0}, '--time-limit 5 .* write "timeout": 5 in the node\'s "warp_configuration"'),
        ("prefork", {"soft_time_limit": 0.5}, "--soft-time-limit 0.5 .* write "),
        ("threads", {"autoscale": (4, 1)}, "--autoscale: the threads pool cannot grow; write -c 4"),
        ("solo", {"autoscale": (4, 1)}, "--autoscale: the solo pool cannot grow; write -P prefork"),
        ("threads", {"max_tasks_per_child": 5}, "--max-tasks-per-child 5: the threads pool .* write -P prefork"),
        ("solo", {"max_memory_per_child": 5}, "--max-memory-per-child 5: the solo pool .* write -P prefork"),
        ("prefork", {"max_tasks_per_child": 0}, "--max-tasks-per-child 0: give a number above 0"),
    ],
)
def test_what_cannot_do_what_its_user_means_is_refused(pool: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        settle(pool, **options)


@pytest.mark.parametrize("option", ["logfile", "pidfile", "statedb"])
def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, option: str) -> None:
    for path, why in ((tmp_path / "none" / "file", "no file can be written in"), (tmp_path, "it is a folder")):
        with pytest.raises(ConfigError, match=f"--{option} .*: {why}"):
            require_places({option: str(path)})
    require_places({option: str(tmp_path / "%n-%I.log"), "logfile": None})


def test_what_does_what_its_user_means_is_taken() -> None:
    limits = settle("prefork", autoscale="4,1", max_tasks_per_child=5, max_memory_per_child=100_000)
    assert limits == Limits(5, 100_000)
    assert not settle("threads")


def test_a_worker_with_such_an_option_ends_at_once(start_worker: StartWorker) -> None:
    worker = start_worker("options", pool="threads", arguments=["--autoscale", "4,1"], wait=False)
    assert worker.wait_for_end() == 78
    assert worker.text().splitlines()[-1] == "celerypipe: --autoscale: the threads pool cannot grow; write -c 4"
