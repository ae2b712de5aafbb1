"""What workers print and log is seen where the run was started, while its nodes are still at work."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from celerypipe import LogLine, Message, NodeFailed, Runner
from celerypipe.redis.connection import connect
from tests.nodes.printing import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import FEW_POOLS, StartWorker, eventually
from tests.servers.extent import at_length

WORDY = "tests.nodes.printing.Wordy"


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text.splitlines()[0] for line in lines if line.text]


@pytest.mark.parametrize(("pool", "slots"), FEW_POOLS)
def test_lines_come_while_the_node_is_at_work_and_say_what_they_belong_to(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path, pool: str, slots: int
) -> None:
    worker = shared_worker(f"logs{pool}", pool=pool, concurrency=slots, config=CONFIG)
    lines: list[LogLine] = []
    gate = tmp_path / "gate"
    runner = Runner(redis_url, logs=lines.append)
    configuration = {"wait": str(gate), "secret": str(tmp_path)}
    reading = Reading(runner.stream(warped(WORDY, f"logs{pool}", configuration=configuration), [Message("x")]))
    eventually(lambda: "warning x" in texts(lines), "a line of a node that is at work")
    assert "end x" not in texts(lines)
    gate.touch()
    reading.join(20)
    assert texts(lines) == ["warming up", f"begin x {tmp_path}", "warning x", "caught", "end x"]
    begin, warning, caught = lines[1], lines[2], lines[3]
    assert (begin.stream, begin.level, begin.node, begin.run) == ("stdout", logging.WARNING, "there", runner.report.run)
    assert (warning.stream, warning.logger, warning.level) == ("", "my.model", logging.WARNING)
    assert "TypeError: string indices must be integers" in caught.text
    assert caught.level == logging.ERROR
    assert {line.message for line in lines[1:]} == {lines[1].message} != {""}
    assert {line.dropped for line in lines} == {0}
    assert {line.worker for line in lines} == {begin.worker}
    assert str(worker.process.pid) in begin.worker
    assert "warning x" in worker.text()


@at_length
def test_spawned_processes_are_heard_too(start_worker: StartWorker, redis_url: str) -> None:
    spawn = 'worker_pool_start_method = "spawn"\n'
    start_worker("logsspawn", pool="prefork", concurrency=2, config=spawn + CONFIG)
    lines: list[LogLine] = []
    list(Runner(redis_url, logs=lines.append).stream(warped(WORDY, "logsspawn"), [Message("x")]))
    assert texts(lines) == ["warming up", "begin x ", "warning x", "caught", "end x"]


@pytest.mark.parametrize("signs", [True, False])
def test_with_keys_only_signed_lines_are_taken(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch, signs: bool
) -> None:
    monkeypatch.setenv("CELERYPIPE_KEYS", "0123456789abcdef")
    start_worker("logssigned", pool="solo", config=CONFIG)
    lines: list[LogLine] = []
    runner = Runner(redis_url, logs=lines.append)
    for _ in runner.stream(warped(WORDY, "logssigned"), [Message("x")]):
        if not signs:
            _alter_one(redis_url, runner)
    assert texts(lines) == ["warming up", "begin x ", "warning x", "caught", "end x"]


def _alter_one(url: str, runner: Runner) -> None:
    """Write a line of the run once more, with another text, and wait until it was seen."""
    run: Any = runner._current
    with connect(url) as client:
        log = client.names.log(run.course.run_id)
        fields: Any = eventually(
            lambda: next((each for _, each in client.xrange(log) if b"begin x" in each[b"l"]), None), "its lines"
        )
        altered: Any = {**fields, b"l": fields[b"l"].replace(b"begin x", b"begun y")}
        client.xadd(log, altered)
    eventually(lambda: run.keyring.refusals.counts["log"] == 1, "what nobody of ours wrote")


@pytest.mark.parametrize(("level", "wanted"), [("DEBUG", ["debug", "info", "warning"]), ("ERROR", [])])
def test_a_run_says_from_which_level_on(
    shared_worker: StartWorker, redis_url: str, level: str, wanted: list[str]
) -> None:
    worker = shared_worker("logssolo", pool="solo", concurrency=1, config=CONFIG)
    lines: list[LogLine] = []
    payload = f"{level}-run"
    for _ in Runner(redis_url, logs=lines.append, log_level=level).stream(
        warped(WORDY, "logssolo"), [Message(payload)]
    ):
        pass
    found = [text for text in texts(lines) if payload in text and not text.startswith(("begin", "end"))]
    assert found == [f"{each} {payload}" for each in wanted]
    assert f"debug {payload}" not in worker.text(), "its own log is as it was asked for"
    assert f"warning {payload}" in worker.text()


def test_a_run_that_hears_nothing_is_sent_nothing(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("logssolo", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url, logs=False)
    for _ in runner.stream(warped(WORDY, "logssolo"), [Message("x")]):
        pass


def test_the_last_words_of_a_failure_are_there_and_secrets_are_not(
    shared_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_worker("logssolo", pool="solo", concurrency=1, config=CONFIG)
    lines: list[LogLine] = []
    runner = Runner(redis_url, logs=lines.append)
    with pytest.raises(NodeFailed):
        list(runner.stream(warped("tests.nodes.printing.Moody", "logssolo"), [Message("raise")]))
    assert "before raise" in texts(lines)
    monkeypatch.setenv("TOKEN", "squeamish-ossifrage")
    lines.clear()
    configuration = {"secret": "$JT_ENV_TOKEN"}
    list(runner.stream(warped(WORDY, "logssolo", configuration=configuration), [Message("x")]))
    assert "begin x ***" in texts(lines)


def test_what_is_dropped_is_counted(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("logssolo", pool="solo", concurrency=1, config=CONFIG)
    lines: list[LogLine] = []
    runner = Runner(redis_url, logs=lines.append)
    count = 20_000
    list(runner.stream(warped(WORDY, "logssolo", configuration={"lines": count}), [Message("x")]))
    printed = [line for line in lines if line.text.startswith("line ")]
    numbers = [int(line.text.split()[1]) for line in printed]
    assert numbers == sorted(numbers)
    assert printed, "on a slow machine all of them"
    others = len([line for line in lines if line.text]) - len(printed)
    assert len(printed) + others + sum(line.dropped for line in lines) >= count + others
