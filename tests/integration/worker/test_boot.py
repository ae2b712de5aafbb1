"""A worker boots: by its files, by its command line, or not at all, and then it says why in one line."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from celerypipe import Message, Pipeline, RedisUnavailable, Runner
from celerypipe.celery.application import make_app
from celerypipe.cli.commands import main
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.mailbox.presence import read_presences
from celerypipe.redis.connection import Client, connect
from celerypipe.redis.url import read_address
from tests.servers import eventually
from tests.servers.port import free_port_of_cluster
from tests.servers.redis import TunedRedis
from tests.servers.task import send_task

NODES = """
from celerypipe import Message, Proc, Source, node

class Double(Proc):
    def update(self, message):
        return message.with_payload(message.payload * 2)

class Numbers(Source):
    def messages(self):
        yield Message(1)

@node
def half(value, by: int = 2):
    return value / by
"""

#: What a mark answers when somebody calls it like a plain task: it runs in the pool, so the whole way works.
ANSWER = "is a node of celerypipe, not a function"


@pytest.mark.parametrize(
    ("pool", "slots", "interrupts"), [("prefork", 2, True), ("solo", 1, True), ("threads", 3, False)]
)
def test_a_worker_runs_by_the_file_of_its_queue(
    start_worker: Callable[..., Any], workplace: Any, redis_url: str, pool: str, slots: int, interrupts: bool
) -> None:
    workplace.module("tasks.heavy", NODES)
    workplace.config("heavy", f'imports = ["tasks.heavy"]\nworker_pool = "{pool}"\nworker_concurrency = {slots}\n')
    worker = start_worker("heavy", cwd=workplace.folder, fresh=pool == "prefork")

    presence = worker.presence
    assert (presence["pool"], presence["slots"], presence["interrupts"]) == (pool, slots, interrupts)
    assert presence["queues"] == ["heavy"]
    assert presence["id"].startswith(f"{presence['host']}.{worker.process.pid}.")
    assert {"celerypipe", "codec", "celery", "python", "redis-py"} == presence["versions"].keys()
    assert {"tasks.heavy.Double", "tasks.heavy.half"} <= presence["marks"].keys()
    assert "tasks.heavy.Numbers" not in presence["marks"], "a source runs where its pipeline runs"

    for _ in range(5):
        send_task(redis_url, "tasks.heavy.Double", "heavy")
    worker.wait_for_text(ANSWER)
    log = worker.text()
    assert f"worker_configs/heavy.toml ({pool}, {slots} " in log
    assert ": INFO/MainProcess] " in log

    worker.process.terminate()
    assert worker.wait_for_end() == 0, worker.text()
    assert worker.presences() == []


def test_a_worker_of_two_queues_runs_by_the_first_and_serves_both(
    start_worker: Callable[..., Any], workplace: Any
) -> None:
    workplace.module("tasks.left", NODES)
    workplace.module("tasks.right", NODES)
    workplace.config("left", 'imports = ["tasks.left"]\nworker_pool = "solo"\n')
    workplace.config("right", 'imports = ["tasks.right"]\nworker_pool = "threads"\nworker_concurrency = 7\n')
    worker = start_worker("left,right", cwd=workplace.folder)

    assert worker.presence["pool"] == "solo"
    assert worker.presence["queues"] == ["left", "right"]
    assert {"tasks.left.Double", "tasks.right.Double"} <= worker.presence["marks"].keys()
    assert "ignored in this worker" in worker.text()
    assert "worker_pool = 'threads', worker_concurrency = 7" in worker.text()


def test_the_command_line_wins_over_the_file(start_worker: Callable[..., Any], workplace: Any) -> None:
    workplace.module("tasks.heavy", NODES)
    workplace.config("heavy", 'imports = ["tasks.heavy"]\nworker_pool = "solo"\nworker_concurrency = 9\n')
    arguments = ["-n", "named@here", "-l", "WARNING"]
    worker = start_worker("heavy", cwd=workplace.folder, pool="threads", concurrency=3, arguments=arguments)

    assert (worker.presence["pool"], worker.presence["slots"]) == ("threads", 3)
    assert "named@here" in worker.text()
    assert ": INFO/" not in worker.text()


def test_a_queue_without_a_file_serves_the_module_of_its_name(start_worker: Callable[..., Any], workplace: Any) -> None:
    workplace.module("tasks.plain", NODES)
    worker = start_worker("plain", cwd=workplace.folder, concurrency=1)

    assert worker.presence["pool"] == "prefork"
    assert "tasks.plain.half" in worker.presence["marks"]


def test_workers_of_one_queue_on_one_machine_have_names_of_their_own(
    start_worker: Callable[..., Any], workplace: Any, redis_url: str
) -> None:
    workplace.config("twin", 'worker_pool = "threads"\nworker_concurrency = 1\n')
    first, second = (start_worker("twin", cwd=workplace.folder, wait=False) for _ in range(2))
    names = {f"twin.{worker.wait_for_presence().process.pid}" for worker in (first, second)}

    asking = make_app({"CELERYPIPE_REDIS_URL": redis_url})
    answers = asking.control.broadcast("ping", reply=True, timeout=20, limit=2, pattern="twin.*", matcher="glob")
    assert {name.partition("@")[0] for answer in answers for name in answer} == names

    first.kill()  # no chance to say goodbye
    second.process.terminate()
    assert second.wait_for_end() == 0
    with connect(redis_url) as client:
        assert second.process.pid not in {record["pid"] for record in read_presences(client)}


def test_a_pool_child_that_was_killed_is_replaced(
    start_worker: Callable[..., Any], workplace: Any, redis_url: str
) -> None:
    workplace.module("tasks.frail", NODES)
    workplace.config("frail", 'imports = ["tasks.frail"]\nworker_concurrency = 1\n')
    worker = start_worker("frail", cwd=workplace.folder)

    children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    send_task(redis_url, "tasks.frail.Double", "frail")
    worker.wait_for_text(ANSWER)


#: What an idle worker asks: Celery whether there is a task, and its news; the heartbeat one script, of two commands.
#: The rest is what the test asks.
IDLE = {"brpop", "publish", "ping", "eval", "set", "exists", "info", "config", "config|resetstat"}


def _asked_for_three_brpops(client: Client) -> set[str]:
    """Which commands were called meanwhile, which is three seconds or more."""
    client.config_resetstat()

    def calls() -> dict[str, Any]:
        found: Any = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in found.items()}

    eventually(lambda: calls().get("brpop", 0) >= 3, "what Celery asks each second")
    return {*calls()}


def _connected(client: Client) -> list[str]:
    """The names of the other connections."""
    found: Any = client.client_list()
    return [each["name"] for each in found if each["name"] != "celerypipe"]


def test_a_worker_asks_little_while_idle_outlives_its_redis_and_is_there_again(
    start_worker: Callable[..., Any], workplace: Any, private_redis: Any
) -> None:
    workplace.module("tasks.steady", NODES)
    workplace.config("steady", 'imports = ["tasks.steady"]\nworker_pool = "threads"\nworker_concurrency = 1\n')
    worker = start_worker("steady", cwd=workplace.folder, url=private_redis.url)
    with connect(private_redis.url) as client:
        eventually(lambda: len(_connected(client)) == 4, "the end of what only its start needed")
        assert {*_connected(client)} == {"celerypipe-heartbeat", "celerypipe-worker-steady"}
        eventually(lambda: not _asked_for_three_brpops(client) - IDLE, "a time in which it asks nothing else")
        assert len(_connected(client)) == 4

    private_redis.stop()
    worker.wait_for_text("onnection to broker lost")
    private_redis.start()
    worker.wait_for_presence()
    send_task(private_redis.url, "tasks.steady.Double", "steady")
    worker.wait_for_text(ANSWER)


def test_a_password_is_used_and_never_shown(
    start_worker: Callable[..., Any], workplace: Any, private_redis: Any
) -> None:
    with connect(private_redis.url) as client:
        client.config_set("requirepass", "s3cret")
    workplace.config("shy", 'worker_pool = "solo"\n')
    url = private_redis.url.replace("unix://", "unix://:s3cret@")
    worker = start_worker("shy", cwd=workplace.folder, url=url)

    log = worker.wait_for_text("ready.")
    assert "unix://:***@" in log
    assert "s3cret" not in log


@pytest.mark.parametrize(("password", "format"), [("", "text"), (":wr0ng@", "json")])
def test_a_password_that_is_missing_or_wrong_ends_the_worker_with_one_line(
    start_worker: Callable[..., Any], private_redis: Any, password: str, format: str
) -> None:
    with connect(private_redis.url) as client:
        client.config_set("requirepass", "s3cret")
    url = private_redis.url.replace("unix://", f"unix://{password}")
    env = {"CELERYPIPE_LOG_FORMAT": format}
    worker = start_worker("shut", config='worker_pool = "solo"\n', url=url, env=env, wait=False)
    assert worker.wait_for_end() == 78
    (line,) = worker.text().splitlines()
    said = json.loads(line)["text"] if format == "json" else line.removeprefix("celerypipe: ")
    assert re.match("Redis at unix://[^ ]+ needs a password, or refuses this one", said)
    assert "wr0ng" not in line


def test_what_another_project_says_neither_ends_nor_redirects_a_worker(
    start_worker: Callable[..., Any], workplace: Any, redis_url: str
) -> None:
    """A spawned pool, which serves as a forked one does, reads all of it once more, in each child."""
    workplace.module("tasks.aside", NODES)
    workplace.module("celeryconfig", "raise RuntimeError('it was read')\n")
    workplace.config("aside", 'imports = ["tasks.aside"]\nworker_pool_start_method = "spawn"\nworker_concurrency = 1\n')
    elsewhere = "redis://:s3cret@localhost:1/0"
    brokers = ("BROKER_URL", "CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")
    backends = ("RESULT_BACKEND", "CELERY_RESULT_BACKEND", "CELERY_CACHE_BACKEND")
    modules = ("CELERY_CONFIG_MODULE", "CONFIG_MODULE", "CELERY_LOADER", "LOADER", "DJANGO_SETTINGS_MODULE")
    environment = {
        **dict.fromkeys(brokers, elsewhere),
        **dict.fromkeys(backends, "db+postgresql://me:s3cret@db/app"),
        **dict.fromkeys(modules, "no.such_module"),
    }
    worker = start_worker("aside", cwd=workplace.folder, env=environment, arguments=["--loglevel", "DEBUG"], fresh=True)
    node = NodeDefinition(name="there", type="proc", mark="tasks.aside.Double", warped=True)
    found = Runner(redis_url).stream(Pipeline(name="aside", nodes=[node], links=[]), [Message(1)])
    assert [message.payload for message in found] == [2]
    assert f"Redis: {redis_url}, named by CELERYPIPE_REDIS_URL" in worker.text()
    assert "s3cret" not in worker.text()
    assert "calling self.run()" in worker.text(), "billiard logs in the child before it knows anything of ours"
    assert "--- Logging error ---" not in worker.text()


def test_a_worker_that_went_deaf_ends_so_that_another_can_start(
    start_worker: Callable[..., Any], workplace: Any, redis_url: str, redis_client: redis.Redis
) -> None:
    workplace.module("tasks.deaf", NODES)
    # What the bugs of Celery do now and then, this does every time: connected, alive, and taking nothing.
    workplace.module(
        "sabotage",
        "from celery import signals\n"
        "from celerypipe.worker import presence, watchdog\n"
        "watchdog.DEAF_AFTER = 1.0\n"
        "presence.LOOK = 0.2\n"
        "@signals.worker_ready.connect(weak=False)\n"
        "def deafen(sender, **_):\n"
        "    sender.task_consumer.channel.qos.can_consume = lambda: False\n",
    )
    workplace.config("deaf", 'imports = ["tasks.deaf", "sabotage"]\nworker_concurrency = 1\n')
    worker = start_worker("deaf", cwd=workplace.folder)
    send_task(redis_url, "tasks.deaf.Double", "deaf")

    assert worker.wait_for_end() == 75
    assert "this worker is deaf" in worker.text()
    assert worker.presences() == []
    assert redis_client.llen("deaf") == 1, "the task waits for the next worker"


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (
            'imports = ["tasks.heavy"]\nworker_pol = "solo"\n',
            "heavy.toml:2: unknown setting 'worker_pol'; did you mean 'worker_pool'?",
        ),
        ('\nworker_pool = "fork"\n', "heavy.toml:2: unknown pool 'fork'; did you mean 'prefork'?"),
        ('worker_concurrency = "four"\n', "heavy.toml:1: 'worker_concurrency' must be a whole number above 0"),
        ("imports = [\n", "heavy.toml: "),
        ('imports = ["tasks.nothing"]\n', "heavy.toml: module 'tasks.nothing' does not import: ModuleNotFoundError"),
        (
            'imports = ["tusks.heavy"]\n',
            "No module named 'tusks'; start in the folder that holds it, or install its package",
        ),
        ('imports = ["tasks.broken"]\n', "broken.py:2: ModuleNotFoundError: No module named 'no_such_library'"),
        ('imports = ["tasks.crooked"]\n', "crooked.py:1: SyntaxError"),
        ('broker_url = "redis://elsewhere"\n', "heavy.toml:1: 'broker_url' is not decided here"),
    ],
)
def test_a_worker_that_cannot_serve_ends_with_one_line(
    start_worker: Callable[..., Any], workplace: Any, config: str, complaint: str
) -> None:
    workplace.module("tasks.broken", "import json\nimport no_such_library\n")
    workplace.module("tasks.crooked", "def (:\n")
    workplace.config("heavy", config)
    worker = start_worker("heavy", cwd=workplace.folder, wait=False)

    assert worker.wait_for_end() == 78
    lines = worker.text().strip().splitlines()
    assert len(lines) == 1, worker.text()
    assert complaint in lines[0]


def test_a_machine_where_processes_cannot_share_locks_is_said(start_worker: Callable[..., Any], workplace: Any) -> None:
    """As in a container without /dev/shm, or where it is full or may not be written."""
    workplace.module(
        "sabotage",
        "import types\n"
        "from billiard import synchronize\n"
        "def missing(*_): raise FileNotFoundError(2, 'No such file or directory')\n"
        "synchronize._billiard = types.SimpleNamespace(SemLock=missing)\n",
    )
    workplace.config("bare", 'imports = ["sabotage"]\n')
    worker = start_worker("bare", cwd=workplace.folder, wait=False)
    assert worker.wait_for_end() == 78
    assert "celerypipe: -P prefork: its processes share locks in /dev/shm, and none can be made there" in worker.text()
    assert "Traceback" not in worker.text()


def test_a_cluster_ends_a_worker_and_a_run_with_one_line(start_worker: Callable[..., Any], workplace: Any) -> None:
    workplace.config("apart", 'worker_pool = "solo"\n')
    port = str(free_port_of_cluster())
    cluster = TunedRedis(settings={"port": port, "bind": "127.0.0.1", "cluster-enabled": "yes"}).start()
    try:
        worker = start_worker("apart", cwd=workplace.folder, url=cluster.url, wait=False)
        assert worker.wait_for_end() == 78
        (line,) = [line for line in worker.text().splitlines() if line]
        assert line.startswith(f"celerypipe: Redis at {read_address(cluster.url)} is part of a cluster, for which ")
        node = NodeDefinition(name="there", type="proc", mark="tasks.apart.Double", warped=True)
        with pytest.raises(RedisUnavailable, match="it is a cluster"):
            list(Runner(cluster.url).stream(Pipeline(name="apart", nodes=[node], links=[]), [Message(1)]))
        done = CliRunner().invoke(main, ["status", "--redis", cluster.url])
        assert done.exit_code == 69
        assert "is part of a cluster, for which Celery has no broker; give the address of one Redis" in done.stderr
    finally:
        cluster.remove()


def test_a_worker_without_a_queue_says_which_there_are(start_worker: Callable[..., Any], workplace: Any) -> None:
    workplace.config("cpu", "")
    workplace.config("gpu", "")
    worker = start_worker("", cwd=workplace.folder, wait=False)
    assert worker.wait_for_end() == 78
    assert "add -Q QUEUE (known here: cpu, gpu)" in worker.text()


def test_a_worker_of_a_misspelt_queue_without_redis_says_both(start_worker: Callable[..., Any], workplace: Any) -> None:
    workplace.module("tasks.slow", NODES)
    worker = start_worker("slwo", cwd=workplace.folder, pool="solo", url="redis://localhost:1/0", wait=False)
    log = worker.wait_for_text("Trying again")
    assert "warning: Redis is not there: redis://localhost:1/0 (Error 111 connecting to" in log
    cure = "start it, or give its address with --broker or CELERYPIPE_REDIS_URL; this worker waits for it\n"
    assert f"; {cure}" in log
    assert "Cannot connect to redis://localhost:1/0:" in log
    assert "*@" not in log, "no password that nobody set"
    assert "nothing is served of queue 'slwo' itself, only what is built in" in log
    assert f"no worker_configs/slwo.toml and no tasks/slwo.py in {workplace.folder}; did you mean 'slow'?" in log
    worker.process.terminate()
    assert worker.wait_for_end() == 0


def test_a_folder_of_files_for_workers_that_is_not_there_ends_the_worker(
    start_worker: Callable[..., Any], workplace: Any
) -> None:
    env = {"CELERYPIPE_WORKER_CONFIGS": "/no/such/folder"}
    worker = start_worker("gone", cwd=workplace.folder, env=env, wait=False)
    assert worker.wait_for_end() == 78
    assert "CELERYPIPE_WORKER_CONFIGS: there is no folder '/no/such/folder'" in worker.text()


def test_a_plugin_folder_that_is_not_there_is_said_and_ends_nothing(
    start_worker: Callable[..., Any], workplace: Any
) -> None:
    """As on the runner's side: a definition may name one out of habit."""
    workplace.config("bare", 'plugins = ["./mine"]\nworker_pool = "solo"\n')
    worker = start_worker("bare", cwd=workplace.folder, env={"CELERYPIPE_PLUGINS": "/no/such/folder"})
    for who, folder in (
        ("worker_configs/bare.toml: plugins", workplace.folder / "mine"),
        ("CELERYPIPE_PLUGINS", "/no/such/folder"),
    ):
        assert f"warning: {who}: there is no folder {folder}; no plugin is found there\n" in worker.text()
