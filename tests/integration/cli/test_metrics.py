"""``celerypipe metrics``: text that Prometheus reads, and numbers that are enough to start and stop workers by."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from celerypipe import Message, Runner
from celerypipe.mailbox.counts import OUTCOMES
from celerypipe.redis import keys
from celerypipe.redis.connection import connect
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading, results
from tests.servers import ROOT, RedisServer, RunningWorker, StartWorker, eventually
from tests.servers.command import RunningCommand, begin, celerypipe
from tests.servers.worker import SIGNED

PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
#: A name that a user may give, and that no format likes.
NONSENSE = 'a "b" {c="d"} %s'


def samples(text: str, name: str) -> dict[tuple[str, ...], float]:
    """The values of a metric, by what its labels say, in the order of the alphabet."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {tuple(value for _, value in sorted(each.labels.items())): each.value for each in found if each.name == name}


class Served:
    """The server, and what it answers."""

    def __init__(self, process: RunningCommand) -> None:
        self.process = process
        said = eventually(lambda: [line for line in process.err.read_text().splitlines() if "/metrics" in line], "it")
        self.client = httpx.Client(base_url=said[0].split()[2].removesuffix("/metrics"), timeout=20)

    def metrics(self, name: str) -> dict[tuple[str, ...], float]:
        answer = self.client.get("/metrics")
        assert answer.status_code == 200
        return samples(answer.text, f"celerypipe_{name}")

    def queue(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/queues/{name}").json()
        return found


@pytest.fixture
def serve(private_redis: RedisServer) -> Iterator[Any]:
    """Serve the metrics of the private Redis, again and again."""
    started: list[RunningCommand] = []

    def start() -> Served:
        started.append(begin("metrics", "-b", private_redis.url, "--serve", ":0"))
        return Served(started[-1])

    yield start
    for each in started:
        each.kill()


def test_prometheus_reads_what_is_printed_whatever_names_there_are(
    private_redis: RedisServer, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERYPIPE_NAMESPACE", "team-a")
    monkeypatch.setenv("CELERYPIPE_KEYS", SIGNED["CELERYPIPE_KEYS"])
    url = private_redis.url
    start_worker("printed", url=url, pool="threads", concurrency=3, config=CONFIG, wait=False).wait_for_text("ready.")
    pipeline = warped("tests.nodes.remote.Echo", "printed")
    named = pipeline.model_copy(update={"name": NONSENSE})
    for _ in range(2):
        assert len(results(Runner(url), named, range(10))) == 10
    done = celerypipe("metrics", "--redis", url)
    assert done.returncode == 0, done.stderr
    ended = samples(done.stdout, "celerypipe_messages_total")
    assert ended == {("there", what, NONSENSE, "printed"): 20.0 * (what == "done") for what in OUTCOMES}
    for time in ("wait", "run", "transfer"):
        counted = samples(done.stdout, f"celerypipe_{time}_seconds_bucket")
        assert counted["+Inf", "there", NONSENSE, "printed"] == 20
        assert list(counted.values()) == sorted(counted.values())
    (worker,) = samples(done.stdout, "celerypipe_worker_up")
    assert worker[1] == "printed"
    assert samples(done.stdout, "celerypipe_queue_slots") == {("printed",): 3}
    for family in text_string_to_metric_families(done.stdout):
        assert family.name.startswith("celerypipe_")
        assert family.documentation.endswith(".")
        assert f"| `{family.name + '_total' * (family.type == 'counter')}` | {family.type} |" in PAGE
    with connect(url) as client:
        stranger = {"id": "h.7.ab", "host": 'h"\n', "pid": 7, "queues": [f"{'q' * 100}{number}" for number in range(3)]}
        names = keys.Names("celerypipe@team-a")
        client.zadd(names.workers, {"h.7.ab": int(client.now() * 1000)})
        client.set(names.presence("h.7.ab"), json.dumps(stranger))
    said = celerypipe("metrics", "--redis", url).stdout
    assert samples(said, "celerypipe_queue_workers") == {("printed",): 1, ("q" * 100,): 1}, "no label is longer"
    numbers = json.loads(celerypipe("metrics", "--redis", url, "--json", "-Q", "printed,idle").stdout)
    idle = {"messages": 0, "in_flight": 0, "oldest_seconds": 0.0, "slots": 0, "workers": 0}
    assert numbers == {"queues": {"printed": {**idle, "slots": 3, "workers": 1}, "idle": idle}}


def test_the_server_outlives_redis_and_counters_outlive_the_server(
    private_redis: RedisServer, start_worker: StartWorker, serve: Any
) -> None:
    url, pipeline = private_redis.url, warped("tests.nodes.remote.Echo", "outlived")
    start_worker("outlived", url=url, pool="solo", config=CONFIG)
    results(Runner(url), pipeline, range(10))
    first = serve()
    assert first.metrics("messages_total")["there", "done", "test", "outlived"] == 10
    first.process.process.send_signal(signal.SIGTERM)
    assert first.process.finish().returncode == 0
    results(Runner(url), pipeline, range(10))
    second = serve()
    assert second.metrics("messages_total")["there", "done", "test", "outlived"] == 20
    private_redis.stop()
    assert second.metrics("redis_up") == {(): 0}
    assert second.metrics("messages_total") == {}
    assert second.client.get("/queues/outlived").status_code == 503, "it is not known to be idle"
    assert second.client.get("/healthz").status_code == 200
    private_redis.start()
    assert second.metrics("redis_up") == {(): 1}
    assert [second.client.get(path).status_code for path in ("/", "/queues/a%20b", "/queues", "/queues/%C3%BC")] == [
        404,
        404,
        200,
        200,
    ]
    second.process.process.send_signal(signal.SIGINT)
    done = second.process.finish()
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()[2:]] == [
        "Redis is not there",
        "Redis works again",
    ]


def test_a_queue_is_scaled_from_nothing_and_back_by_its_numbers_alone(
    private_redis: RedisServer, start_doomed: StartWorker, serve: Any
) -> None:
    numbers = serve()
    assert set(numbers.queue("scaled").values()) == {0}
    workers: list[RunningWorker] = []
    pipeline = warped("tests.nodes.remote.Echo", "scaled", configuration={"delay": 0.01})

    def idle() -> bool:
        now = numbers.queue("scaled")
        return not now["messages"] and not now["in_flight"]

    def scale_up() -> None:
        eventually(lambda: numbers.queue("scaled")["messages"], "messages that wait")
        workers.append(start_doomed("scaled", url=private_redis.url, pool="solo", config=CONFIG))

    for _ in range(2):
        reading = Reading(Runner(private_redis.url).stream(pipeline, map(Message, range(200))))
        eventually(lambda: numbers.queue("scaled")["messages"] == 64, "a window of messages")
        assert numbers.queue("scaled")["oldest_seconds"] > 0
        scale_up()
        reading.wait_for(20)
        workers[-1].kill()  # the machine is gone, with what it had in hand
        scale_up()
        assert reading.payloads() == list(range(200))
        eventually(idle, "an idle queue")
        workers[-1].stop()
        eventually(lambda: not numbers.queue("scaled")["workers"], "no worker")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--serve", "here"], "'here' is no address; write :9808"),
        (["--serve", ":70000"], "':70000' is no address"),
        (["--serve", ":0", "--json"], "--serve cannot be combined with --json or --queue"),
        (["--serve", "192.0.2.1:9808"], "cannot listen on 192.0.2.1:9808"),
    ],
)
def test_what_cannot_be_served_is_said(redis_url: str, words: list[str], said: str) -> None:
    done = celerypipe("metrics", "--redis", redis_url, *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_without_redis_nothing_is_printed() -> None:
    done = celerypipe("metrics", "--redis", "unix:///nowhere/redis.sock")
    assert (done.returncode, done.stdout) == (69, "")
    assert "Redis is not there" in done.stderr
