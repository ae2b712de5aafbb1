"""Two projects in one database of one Redis, with one name of a queue and one mark: none sees anything of the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from celerypipe import ConfigError, Message, NoWorker, Runner
from celerypipe.celery.application import make_app
from celerypipe.mailbox.presence import elsewhere, read_presences
from celerypipe.redis.connection import Client, connect
from celerypipe.redis.namespace import named
from celerypipe.settings import RedisSettings, Settings
from tests.runs.pipelines import warped
from tests.runs.reading import Reading, results
from tests.servers import RedisServer, RunningWorker, StartWorker, Workplace, eventually
from tests.servers.command import celerypipe, start
from tests.servers.worker import KEY

NODES = """
import numpy as np
from celerypipe import node

@node
def mine(value, size: int = 0):
    return np.full(size, {sign}, np.int64) if size else {sign} * value
"""
QUEUE, MARK = "shared", "shared_by_two.mine"
CONFIG = 'imports = ["shared_by_two"]\nworker_pool = "solo"\n'
VARIABLE = "CELERYPIPE_NAMESPACE"


@pytest.fixture
def two(private_redis: RedisServer, start_worker: StartWorker, workplace: Workplace) -> dict[str, RunningWorker]:
    """A worker of each project: that of ``a`` gives what it gets, that of ``b`` its negative."""
    found = {}
    for name, sign in (("a", 1), ("b", -1)):
        place = Workplace(workplace.folder / name)
        place.module("shared_by_two", NODES.format(sign=sign))
        env = {VARIABLE: name, "CELERYPIPE_KEYS": KEY}
        options: dict[str, Any] = {"cwd": place.folder, "config": CONFIG, "env": env, "wait": False}
        found[name] = start_worker(QUEUE, url=private_redis.url, **options)
    for name, worker in found.items():
        with connect(RedisSettings.find(private_redis.url, {VARIABLE: name}).or_default) as client:

            def there(client: Client = client, worker: RunningWorker = worker) -> bool:
                return worker.process.pid in {each["pid"] for each in read_presences(client)}

            eventually(there, "the worker's presence")
    return found


def names_of(client: Client) -> set[bytes]:
    """What the keys of this Redis begin with."""
    return {name.partition(b":")[0] for name in client.scan_iter(count=1000)}


def test_no_worker_takes_a_task_of_another_namespace(
    two: dict[str, RunningWorker], private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = private_redis.url
    monkeypatch.setenv("CELERYPIPE_KEYS", KEY)
    # In neither: it says where workers are, and nobody takes anything.
    with pytest.raises(NoWorker, match=r"queue 'shared' in this namespace; workers of queue 'shared' are in namespace"):
        results(Runner(url), warped(MARK, QUEUE, limits={"on_no_worker": "fail"}), [1])
    said: list[str] = []
    waiting = Runner(url, on_event=said.append)
    reading = Reading(waiting.stream(warped(MARK, QUEUE), [Message(1)]))
    text = eventually(lambda: next((each for each in said if "namespace" in each), ""), "what is said")
    assert "in namespace 'a' and 'b': CELERYPIPE_NAMESPACE=a, where the run is started, reaches them" in text

    for name, sign in (("a", 1), ("b", -1)):
        monkeypatch.setenv(VARIABLE, name)
        runner = Runner(url, on_event=said.append)
        assert results(runner, warped(MARK, QUEUE), range(1, 101)) == [sign * number for number in range(1, 101)]
        large = warped(MARK, QUEUE, configuration={"size": 100_000}, cache=True)
        assert [int(each[-1]) for each in results(Runner(url, shared_memory=False), large, [0, 0])] == [sign, sign]
        with connect(RedisSettings.find(url).or_default) as client:
            assert len(read_presences(client)) == 1
            assert set(elsewhere(client, QUEUE)) == {"a", "b"} - {name}
            assert elsewhere(client, "another") == []
    assert reading.is_alive(), "what was asked in no namespace waits for a worker there"

    # Celery's own commands, and ours, in a namespace.
    monkeypatch.setenv(VARIABLE, "b")
    control = make_app({"CELERYPIPE_REDIS_URL": url, VARIABLE: "b"}).control
    (answer,) = control.ping(timeout=3)
    assert f"{QUEUE}.{two['b'].process.pid}@" in next(iter(answer))
    shown = json.loads(celerypipe("status", "--redis", url, "--json", CELERYPIPE_NAMESPACE="b").stdout)
    assert [each["pid"] for each in shown["workers"]] == [two["b"].process.pid]
    assert {each["state"] for each in shown["runs"]} == {"finished"}
    bare = json.loads(celerypipe("status", "--redis", url, "--json", CELERYPIPE_NAMESPACE="celerypipe").stdout)
    assert (bare["workers"], [each["state"] for each in bare["runs"]]) == ([], ["running"])
    app = make_app({"CELERYPIPE_REDIS_URL": url, VARIABLE: "b"})
    app.send_task("nobody.knows", queue="later", retry=False)
    with connect(RedisSettings.find(url, {VARIABLE: "b"}).or_default) as client:
        assert client.llen(client.names.queue("later")) == 1
        assert client.llen("later") == 0
        words = ["-m", "celery", "-A", "celerypipe", "purge", "-f", "-Q", "later"]
        purged = start(*words, **{"CELERYPIPE_REDIS_URL": url, VARIABLE: "b"}).finish()
        assert "Purged 1 message" in purged.stdout, purged.stderr
        assert client.llen(client.names.queue("later")) == 0

        # What is no task is kept apart in the namespace, and the worker goes on.
        client.lpush(client.names.queue(QUEUE), b"no task")
        eventually(lambda: client.llen(client.names.refused(QUEUE)) == 1, "what was kept")
        assert results(Runner(url), warped(MARK, QUEUE), [3]) == [-3]

        assert names_of(client) <= {b"celerypipe@a", b"celerypipe@b", b"celerypipe"}
        for name in ("a", "b"):
            assert list(client.scan_iter(f"celerypipe@{name}:cache:entry:*"))
        # Of the usual one there is the run that waits, and the word where others are.
        usual = {name.split(b":")[1] for name in client.scan_iter("celerypipe:*")}
        assert usual <= {b"run", b"runs", b"about", b"node", b"mailbox", b"reply", b"namespaces"}
        assert {b"mailbox", b"namespaces"} <= usual
    waiting.cancel()
    assert "namespace 'b'" in two["b"].text()


@pytest.mark.parametrize("name", ["a b", "a:b", "{a}", "-a", "ä", "a" * 65, "a*", "a@b"])
def test_a_name_that_is_none_is_refused_with_its_place(name: str) -> None:
    with pytest.raises(ConfigError, match=r"CELERYPIPE_NAMESPACE: .* is no namespace; write a name such as team-a"):
        Settings.from_environment({VARIABLE: name})


def test_the_usual_one_has_a_name_and_bare_queues() -> None:
    for environment in ({}, {VARIABLE: ""}, {VARIABLE: "celerypipe"}):
        names = RedisSettings.find(None, environment).or_default.names
        assert (names.run("r"), names.queue("gpu")) == ("celerypipe:run:r", "gpu")
    names = named("team-a")
    assert (names.run("r"), names.queue("gpu")) == ("celerypipe@team-a:run:r", "celerypipe@team-a:celery:gpu")
    assert type(names).of_broker(names.broker) == names
