"""Lines of a worker whose clock is wrong, of one that is killed, and of a Redis that was away."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from celerypipe import LogLine, Message, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.redis.connection import connect
from celerypipe.redis.keys import LOG_MOST
from tests.nodes.printing import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.extent import at_length
from tests.servers.processes import alive, monitors_of

#: Where Debian's package libfaketime puts it; the directory is that of the machine's architecture.
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


def numbers(lines: list[LogLine], word: str) -> list[int]:
    return [int(line.text.split()[1]) for line in lines if line.text.startswith(f"{word} ")]


@pytest.mark.parametrize("who", ["child", pytest.param("worker", marks=at_length)])
def test_who_is_killed_while_it_prints_loses_nothing(
    start_doomed: StartWorker, redis_url: str, tmp_path: Path, who: str
) -> None:
    worker = start_doomed(f"lkill{who}", pool="prefork", concurrency=1, config=CONFIG)
    lines: list[LogLine] = []
    diary = tmp_path / "diary"
    pipeline = warped("tests.nodes.printing.Endless", f"lkill{who}", configuration={"diary": str(diary)})
    runner = Runner(redis_url, logs=lines.append)
    reading = Reading(runner.stream(pipeline, [Message("count")]))
    eventually(lambda: len(numbers(lines, "count")) > 50, "lines of a node that prints for ever")
    pid = lines[-1].pid
    os.kill(worker.process.pid if who == "worker" else pid, signal.SIGKILL)
    eventually(lambda: not alive(pid), "its end")
    last = int(Path(f"{diary}.{pid}").read_text().split()[-1])

    def of_it() -> list[int]:
        return numbers([line for line in lines if line.pid == pid], "count")

    eventually(lambda: of_it()[-1] >= last, "the last line before the kill")
    assert of_it() == list(range(len(of_it())))
    runner.cancel()
    reading.join(20)


@pytest.mark.skipif(not FAKETIME, reason="without libfaketime (apt install libfaketime) no clock is 3 s off")
def test_lines_of_two_workers_whose_clocks_differ_stand_in_order(
    start_doomed: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    def worker(queue: str, **options: Any) -> None:
        start_doomed(queue, pool="solo", concurrency=1, config=CONFIG, **options)

    worker("lright")
    worker("lahead", fresh=True, env={"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": "+3s"})

    def node(name: str, queue: str) -> NodeDefinition:
        configuration = {"diary": str(tmp_path / name), "word": name}
        mark = "tests.nodes.printing.Turns"
        return NodeDefinition(
            name=name,
            type="proc",
            mark=mark,
            configuration={**configuration, "other": str(tmp_path / ("b" if name == "a" else "a"))},
            warped=True,
            warp_configuration={"queue": queue},
        )

    pipeline = Pipeline(name="turns", nodes=[node("a", "lright"), node("b", "lahead")], links=[])
    lines: list[LogLine] = []
    list(Runner(redis_url, logs=lines.append).stream(pipeline, [Message(20)]))
    found = [line.text for line in lines if line.text.startswith("turn ")]
    assert found == [f"turn {number}" for number in range(40)]
    assert {line.node for line in lines} == {"a", "b"}


@at_length
def test_while_redis_is_away_lines_wait_and_what_is_too_much_is_counted(
    start_doomed: StartWorker, private_redis: RedisServer, tmp_path: Path
) -> None:
    start_doomed("laway", url=private_redis.url, pool="solo", concurrency=1, config=CONFIG)
    lines: list[LogLine] = []
    configuration = {"diary": str(tmp_path / "diary")}
    pipeline = warped("tests.nodes.printing.Endless", "laway", configuration=configuration)
    runner = Runner(private_redis.url, logs=lines.append)
    reading = Reading(runner.stream(pipeline, [Message("count")]))
    eventually(lambda: len(numbers(lines, "count")) > 50, "lines of a node that prints for ever")
    private_redis.freeze(4.0)
    then = max(numbers(lines, "count"))
    eventually(lambda: max(numbers(lines, "count")) > then + 2000, "lines after the pause")
    found = numbers(lines, "count")
    assert len(found) + sum(line.dropped for line in lines) >= max(found) - min(found)
    assert found == sorted(found)
    runner.cancel()
    reading.join(20)


@at_length
def test_memory_is_flat_while_a_node_prints_for_ever(start_doomed: StartWorker, redis_url: str, tmp_path: Path) -> None:
    worker = start_doomed("lflat", pool="prefork", concurrency=1, config=CONFIG)
    (monitor,) = monitors_of(worker.process.pid)
    count = 0

    def show(line: LogLine) -> None:
        nonlocal count
        count += 1

    runner = Runner(redis_url, logs=show)
    configuration = {"diary": str(tmp_path / "diary"), "pause": 0.0}
    pipeline = warped("tests.nodes.printing.Endless", "lflat", configuration=configuration)
    reading = Reading(runner.stream(pipeline, [Message("count")]))
    eventually(lambda: count > 5_000, "lines of a node that prints for ever")
    child = int(next(tmp_path.glob("diary.*")).suffix[1:])
    before = [resident(pid) for pid in (os.getpid(), monitor, child)]
    eventually(lambda: count > 25_000, "many more of them", timeout=90)
    after = [resident(pid) for pid in (os.getpid(), monitor, child)]
    assert all(now - then < 5_000_000 for then, now in zip(before, after, strict=True)), (before, after)
    with connect(redis_url) as client:
        run = runner._current
        assert run is not None
        assert client.xlen(client.names.log(run.course.run_id)) <= 2 * LOG_MOST
    runner.cancel()
    reading.join(20)


def resident(pid: int) -> int:
    """Bytes that a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
