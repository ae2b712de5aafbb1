"""Runners and workers of other protocols: each is told at once who is who, and what to do; nobody waits in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from celerypipe import ConfigError, Message, Runner
from celerypipe.cli.commands import main
from celerypipe.mailbox import protocol
from celerypipe.mailbox.bell import declined_in
from celerypipe.mailbox.protocol import Spoken
from celerypipe.mailbox.record import Record
from celerypipe.mailbox.wire import DECLINED
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.signing import Keyring
from tests.nodes.remote import CONFIG
from tests.runs.mailbox import box_of
from tests.runs.pipelines import warped
from tests.runs.reading import Reading, results
from tests.runs.traces import run_of
from tests.servers import RunningWorker, StartWorker, eventually
from tests.servers.task import send_task
from tests.servers.worker import KEY, SIGNED

ECHO = "tests.nodes.remote.Echo"


@pytest.fixture
def worker(shared_worker: StartWorker) -> RunningWorker:
    return shared_worker("spoken", pool="solo", concurrency=1, config=CONFIG)


def test_a_run_with_workers_of_another_protocol_ends_at_once_and_says_who_is_older(
    worker: RunningWorker, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "SPOKEN", Spoken(9, 8))
    where = (
        f"the worker on {worker.presence['host']} (pid {worker.presence['pid']}) speaks protocol 1, and this machine"
    )
    cure = f"protocol 9: update celerypipe on {worker.presence['host']}, and restart the worker"
    with pytest.raises(ConfigError, match=r"queue 'spoken': the worker .* speaks protocol 1") as caught:
        results(Runner(redis_url), warped(ECHO, "spoken"), [1])
    assert f"{where} protocol 9; to fix it: update celerypipe on" in str(caught.value)
    shown = CliRunner().invoke(main, ["status", "--redis", redis_url]).stdout
    assert f"{where} {cure}" in shown.replace("\n", " ")

    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps(warped(ECHO, "spoken").to_dict()))
    checked = CliRunner().invoke(main, ["check", str(file), "--live", "--json", "--redis", redis_url])
    assert checked.exit_code == 2
    (finding,) = [
        each
        for each in json.loads(checked.stdout)["findings"]
        if each["severity"] == "error" and each["check"] == "protocol"
    ]
    assert (finding["place"], finding["mend"]) == ("queue 'spoken'", cure.partition(": ")[2])


def test_a_worker_that_comes_with_another_protocol_gets_no_work_and_is_named(
    worker: RunningWorker, redis_url: str, redis_client: Client
) -> None:
    said: list[str] = []
    runner = Runner(redis_url, on_event=said.append)
    late = {"id": "late.7.ab", "host": "late", "pid": 7, "queues": ["spoken"], "protocol": [5, 4], "marks": "other"}
    pipeline = warped("tests.nodes.remote.Nap", "spoken", limits={"window": 1})
    reading = Reading(runner.stream(pipeline, (Message(0.05) for _ in range(60))))
    try:
        reading.wait_for(1)
        redis_client.set(keys.USUAL.presence("late.7.ab"), json.dumps(late), ex=15)
        for each in (keys.USUAL.workers, keys.USUAL.serving("spoken")):
            redis_client.zadd(each, {"late.7.ab": int(redis_client.now() * 1000)})
        assert len(reading.payloads()) == 60
    finally:
        for each in (keys.USUAL.workers, keys.USUAL.serving("spoken")):
            redis_client.zrem(each, "late.7.ab")
    (text,) = [each for each in said if "late" in each]
    assert "speaks protocol 5, and this machine protocol 1: update celerypipe here" in text
    assert text.endswith("it gets no work of this run")


@pytest.mark.parametrize("key", ["", KEY])
def test_a_task_of_another_protocol_is_declined_to_its_run(
    shared_worker: StartWorker, redis_url: str, redis_client: Client, key: str
) -> None:
    """What is declined can be read by every version: here it is one that this worker knows nothing of."""
    queue, keyring = ("signed", Keyring.parse(key)) if key else ("spoken", None)
    worker = shared_worker(queue, pool="solo", concurrency=1, config=CONFIG, **({"env": SIGNED} if key else {}))
    box = box_of(keyring, f"declined{bool(key)}", "there", redis_client)
    send_task(redis_url, ECHO, queue, [9, 8], box.run, "there", {"slot": 0})
    ((_, fields),) = eventually(lambda: redis_client.call("XRANGE", box.reply, "-", "+"), "an answer")
    assert fields[0] == DECLINED
    declined = declined_in(fields[1], box.run, keyring)
    assert declined is not None
    assert (declined.node, declined.worker) == ("there", worker.presence["id"])
    assert declined.text == (
        "this run speaks protocol 9, and the worker protocol 1: update celerypipe where the worker is, and restart it"
    )
    other = Keyring.parse("another key of the tests as known")
    assert declined_in(fields[1], box.run, other) is None
    assert (declined_in(fields[1], "another", keyring) is None) == bool(key)


def test_a_record_that_a_stranger_altered_is_written_anew_and_one_that_stays_so_ends_the_run(
    worker: RunningWorker, redis_url: str, redis_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def altered(times: int) -> Callable[[Record], bytes]:
        write, left = Record.write, iter(range(times))
        return lambda record: b"rubbish" if next(left, None) is not None else write(record)

    monkeypatch.setattr(Record, "write", altered(1))
    assert results(Runner(redis_url, on_event=said.append), warped(ECHO, "spoken"), [1, 2]) == [1, 2]
    (text,) = [each for each in said if "cannot serve it" in each]
    assert "node 'there': the worker on" in text
    assert "install the same celerypipe on both sides" in text

    monkeypatch.setattr(Record, "write", altered(10**6))
    with pytest.raises(ConfigError, match=r"cannot serve node 'there': what its run tells of the node cannot be read"):
        results(Runner(redis_url), warped(ECHO, "spoken"), [1])


def test_a_reply_that_nobody_can_read_is_said_once(worker: RunningWorker, redis_url: str, redis_client: Client) -> None:
    said: list[str] = []
    runner = Runner(redis_url, on_event=said.append)
    pipeline = warped("tests.nodes.remote.Nap", "spoken", limits={"window": 1})
    reading = Reading(runner.stream(pipeline, (Message(0.05) for _ in range(20))))
    reading.wait_for(1)
    for fields in (
        {"what": "is this"},
        {"declined": "rubbish"},
        {"declined": '{"node": "nobody", "worker": "w", "text": ""}'},
    ):
        redis_client.xadd(keys.USUAL.reply(run_of(runner)), fields)
    assert len(reading.payloads()) == 20
    (text,) = [each for each in said if "is ignored" in each]
    assert "a result that no worker of this protocol wrote" in text
