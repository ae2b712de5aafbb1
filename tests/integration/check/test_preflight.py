"""``celerypipe check --live`` and what a run says first, against a real Redis and real workers."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from celerypipe import ConfigError, Message, Runner
from celerypipe.errors import RedisUnavailable
from celerypipe.mailbox.status import read_status
from celerypipe.redis.connection import connect
from celerypipe.redis.url import read_address
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import results
from tests.servers import PATIENCE, ROOT, RedisServer, StartWorker, Workplace, eventually
from tests.servers.command import celerypipe, start
from tests.servers.extent import LONG

#: What is promised of a look, in seconds; more on a machine that runs other tests at the same time.
PROMISE = 2.0 if LONG else 10.0


def definition(folder: Path, queue: str, mark: str = "tests.nodes.remote.Echo", **node: Any) -> Path:
    """Numbers through a warped node into a file; ``node``: more of the warped one."""
    limits = {"queue": queue, **node.pop("limits", {})}
    there = {"name": "there", "type": "proc", "mark": mark, "warped": True, "warp_configuration": limits, **node}
    source = {"name": "src", "type": "source", "mark": "data_streamer", "configuration": {"count": 3, "rate": 0}}
    sink = {"name": "out", "type": "sink", "mark": "json_lines", "configuration": {"path": str(folder / "out.jsonl")}}
    links = [{"from": "src", "to": "there"}, {"from": "there", "to": "out"}]
    path = folder / "pipeline.json"
    body = {"name": "numbers", "nodes": [source, there, sink], "links": links}
    path.write_text(json.dumps({"version": "1", "pipeline": body}))
    return path


def live(path: Path, url: str, *words: object) -> tuple[int, dict[str, Any]]:
    """``check --live --json``: its exit status and what it prints."""
    done = celerypipe("check", path, "--live", "--redis", url, "--json", *words)
    assert done.stderr == "", done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_worker_that_fits_leaves_nothing_but_notes(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    worker = shared_worker("tprefork", pool="prefork", concurrency=2, config=CONFIG)
    assert abs(worker.presence["clock"]) < 1  # it is this machine's own
    path = definition(tmp_path, "tprefork", timeout=5)
    status, said = live(path, redis_url)
    assert (status, said["ok"]) == (0, True)
    assert {finding["severity"] for finding in said["findings"]} <= {"note"}
    assert said["queues"] == {"tprefork": {"workers": 1, "slots": 2}}
    assert said["redis"]["latency"] < 1
    assert abs(said["redis"]["clock"]) < 1
    text = celerypipe("check", path, "--live", CELERYPIPE_REDIS_URL=redis_url)
    assert text.returncode == 0
    assert "queue 'tprefork': 1 worker, 2 slots on " in text.stdout


def test_everything_that_is_wrong_with_the_workers_is_said_at_once_with_its_cure(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("tthreads", pool="threads", concurrency=2, config=CONFIG)
    path = definition(tmp_path, "tthreads", timeout=5, configuration={"dellay": 1})
    status, said = live(path, redis_url)
    assert status == 2
    checks = {finding["check"]: finding for finding in said["findings"]}
    assert checks["arguments"]["severity"] == "error"
    assert "did you mean 'delay'?" in checks["arguments"]["text"]
    assert checks["timeout"]["severity"] == "warning"
    assert checks["timeout"]["mend"] == "celery -A celerypipe worker -P prefork -Q tthreads"
    done = celerypipe("check", path, "--live", "--redis", redis_url)
    assert done.returncode == 2
    assert (
        "error: node 'there' (tests.nodes.remote.Echo): tests.nodes.remote.Echo has no argument 'dellay'" in done.stderr
    )
    assert "to fix it: celerypipe nodes tests.nodes.remote.Echo" in done.stderr
    assert "warning: node 'there': the worker on" in done.stdout


def test_a_queue_without_a_worker_is_no_error_while_the_node_waits(redis_url: str, tmp_path: Path) -> None:
    status, said = live(definition(tmp_path, "nobody"), redis_url)
    (missing,) = [finding for finding in said["findings"] if finding["check"] == "worker"]
    assert (status, missing["severity"]) == (0, "warning")
    assert missing["mend"] == read_address(redis_url).worker_command("nobody")
    status, said = live(definition(tmp_path, "nobody", limits={"on_no_worker": "fail"}), redis_url)
    (missing,) = [finding for finding in said["findings"] if finding["check"] == "worker"]
    assert (status, missing["severity"]) == (69, "error")
    done = celerypipe("run", definition(tmp_path, "nobody", limits={"on_no_worker": "fail"}), "--redis", redis_url)
    assert done.returncode == 69
    assert "NoWorker: workers: no live worker serves queue 'nobody'" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


NODE = 'from celerypipe import Proc\n\nclass Double(Proc):\n    version = "{}"\n    def update(self, m): return m\n'


def test_a_node_of_another_version_is_refused_and_its_module_is_not_run_here(
    start_worker: StartWorker, redis_url: str, workplace: Workplace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workplace.module("elsewhere.doubling", NODE.format("1"))
    config = 'imports = ["elsewhere.doubling"]\n'
    start_worker(
        "version", pool="solo", cwd=workplace.folder, env={"PYTHONPATH": f"{workplace.folder}:{ROOT}"}, config=config
    )
    here = Workplace(tmp_path_factory.mktemp("here"))
    pipeline = definition(here.folder, "version", "elsewhere.doubling.Double")
    here.module("elsewhere.doubling", "import a_model_that_is_not_here\n" + NODE.format("2"))
    done = celerypipe("run", pipeline, "--redis", redis_url, cwd=here.folder)
    assert done.returncode == 2, done.stderr
    assert "elsewhere.doubling.Double is version '2' here and '1' on the worker on" in done.stderr
    here.module("elsewhere.doubling", "import a_model_that_is_not_here\n" + NODE.format("1"))
    done = celerypipe("run", pipeline, "--redis", redis_url, cwd=here.folder)
    assert done.returncode == 0, done.stderr
    assert (here.folder / "out.jsonl").read_text() == "0\n1\n2\n"


def test_new_code_on_a_worker_ends_no_run_that_goes_on_and_lets_none_begin(
    start_worker: StartWorker,
    redis_url: str,
    workplace: Workplace,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer = Workplace(tmp_path_factory.mktemp("newer"))
    for place, version in ((workplace, "1"), (newer, "2")):
        place.module("renewed", NODE.format(version))
    monkeypatch.syspath_prepend(str(workplace.folder))

    def start(place: Workplace) -> None:
        config = 'imports = ["renewed"]\n'
        path = f"{place.folder}:{ROOT}"
        start_worker("renewed", pool="solo", cwd=place.folder, env={"PYTHONPATH": path}, config=config)

    said: list[str] = []
    there = threading.Event()

    def messages() -> Iterator[Message]:
        yield Message(0)
        there.wait(PATIENCE)
        yield Message(1)

    start(workplace)
    stream = Runner(redis_url, on_event=said.append).stream(warped("renewed.Double", "renewed"), messages())
    assert next(stream).payload == 0
    start(newer)
    eventually(lambda: any("version '1' here and '2' on the worker on" in text for text in said), "a word about it")
    there.set()
    assert [message.payload for message in stream] == [1]
    with pytest.raises(ConfigError, match="version '1' here and '2' on the worker on"):
        results(Runner(redis_url), warped("renewed.Double", "renewed"), [1])
    assert "renewed" not in sys.modules


def test_a_full_or_evicting_redis_is_said_by_the_run_and_by_check(
    private_redis: RedisServer, start_worker: StartWorker, tmp_path: Path
) -> None:
    url = private_redis.url
    start_worker("short", pool="solo", url=url, config=CONFIG)
    with connect(url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "100mb")
        said: list[str] = []
        assert results(Runner(url, on_event=said.append), warped("tests.nodes.remote.Echo", "short"), [1]) == [1]
        assert [text for text in said if "allkeys-lru" in text and "CONFIG SET maxmemory-policy noeviction" in text]
        assert [text for text in said if "MiB left, and a run may have 256 MiB" in text]
        status, found = live(definition(tmp_path, "short"), url)
        assert status == 0
        assert {"eviction", "memory", "persistence"} <= {finding["check"] for finding in found["findings"]}
        # What mends it, as it is printed.
        (mend,) = [finding["mend"] for finding in found["findings"] if finding["check"] == "eviction"]
        assert mend.startswith(f"redis-cli -s {private_redis.folder}/redis.sock CONFIG SET ")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
        with pytest.raises(RedisUnavailable, match="its memory is full"):
            results(Runner(url), warped("tests.nodes.remote.Echo", "short"), [1])


def test_a_replica_is_refused_before_anything_is_sent_there(private_redis: RedisServer, redis_url: str) -> None:
    with connect(private_redis.url) as client:
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(RedisUnavailable, match=r"it is a replica of 127\.0\.0\.1:1.*redis://127\.0\.0\.1:1/0"):
            results(Runner(private_redis.url), warped("tests.nodes.remote.Echo", "nobody"), [1])
        assert client.keys("*") == []


def test_a_user_who_may_not_ask_info_runs_all_the_same(private_redis: RedisServer, start_worker: StartWorker) -> None:
    start_worker("blind", pool="solo", url=private_redis.url, config=CONFIG)
    with connect(private_redis.url) as client:
        client.execute_command("ACL", "SETUSER", "blind", "on", ">word", "~*", "&*", "+@all", "-info")
    url = private_redis.url.replace("unix://", "unix://blind:word@")
    assert results(Runner(url), warped("tests.nodes.remote.Echo", "blind"), [1, 2]) == [1, 2]


def test_a_frozen_or_absent_redis_is_said_within_two_seconds(private_redis: RedisServer, tmp_path: Path) -> None:
    assert private_redis.process is not None
    path = definition(tmp_path, "q")
    program = (
        "import time; from pathlib import Path; from celerypipe.cli.check import look_live; "
        "from celerypipe.redis.url import read_address; "
        "from celerypipe.definition.pipeline import Pipeline; start = time.monotonic(); "
        "seen, (finding,) = look_live(Pipeline.load(Path({!r})), read_address({!r})); "
        "print(time.monotonic() - start, finding)"
    )
    os.kill(private_redis.process.pid, signal.SIGSTOP)
    try:
        for url, said in (
            (private_redis.url, "Redis does not answer"),
            (f"unix://{tmp_path}/none.sock", "Redis is not there"),
        ):
            done = start("-c", program.format(str(path), url)).finish()
            assert done.returncode == 0, done.stderr
            seconds, _, finding = done.stdout.partition(" ")
            assert float(seconds) < PROMISE
            assert said in finding
        status, found = live(path, private_redis.url)
        assert (status, [finding["check"] for finding in found["findings"]]) == (69, ["redis"])
    finally:
        os.kill(private_redis.process.pid, signal.SIGCONT)


def test_without_an_address_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    done = celerypipe("check", definition(tmp_path, "q"), "--live")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--live needs the address of Redis" in done.stderr
    local = definition(tmp_path, "q", warped=False, limits={})
    done = celerypipe("check", local, "--live")
    assert done.returncode == 0, done.stderr
    assert "note: no node is warped: the run needs no Redis and no workers" in done.stdout


def test_a_look_at_a_busy_solo_worker_takes_no_time(
    start_worker: StartWorker, redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """It does not answer ``inspect``; its presence says all the same what it is."""
    start_worker("busysolo", pool="solo", config=CONFIG)
    gate = tmp_path / "open"
    pipeline = warped("tests.nodes.remote.Gate", "busysolo")
    reader = threading.Thread(target=results, args=(Runner(redis_url), pipeline, [str(gate)]))
    reader.start()

    def at_work() -> bool:
        return any(each.busy and "busysolo" in each.queues for each in read_status(redis_client).workers)

    eventually(at_work, "a message at work")
    status, said = live(definition(tmp_path, "busysolo"), redis_url)
    assert reader.is_alive()
    gate.touch()
    reader.join()
    assert (status, said["queues"]) == (0, {"busysolo": {"workers": 1, "slots": 1}})


def test_workers_that_come_later_are_looked_at_too(start_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "only_there.py").write_text("from tests.nodes.remote import Echo as Base\nclass Echo(Base): ...\n")
    said: list[str] = []
    stream = Runner(redis_url, on_event=said.append).stream(
        warped("only_there.Echo", "later", configuration={"dellay": 1}), [Message(1)]
    )
    start_worker("later", pool="solo", config='imports = ["only_there"]', cwd=tmp_path, wait=False)
    with pytest.raises(ConfigError, match="did you mean 'delay'"):
        list(stream)
    assert len([text for text in said if "no live worker serves queue 'later'" in text]) == 1
