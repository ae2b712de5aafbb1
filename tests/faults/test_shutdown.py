"""A worker is told to end, in every way there is: what is at work gets some time, all else is handed back at once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from celerypipe import Message, Runner
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import RunningWorker, StartWorker, eventually
from tests.servers.terminal import Terminal


def at_work(redis_url: str, queue: str, folder: Path, seconds: float, messages: int = 1) -> Reading:
    """A run whose first message is in ``update`` there."""
    diary = folder / "diary"
    pipeline = warped("tests.nodes.remote.Nap", queue, configuration={"diary": str(diary)})
    reading = Reading(Runner(redis_url).stream(pipeline, [Message(seconds) for _ in range(messages)]))
    eventually(lambda: diary.exists() and diary.read_text(), "a message at work")
    return reading


def another_life(worker: RunningWorker) -> bool:
    return any(each["id"] != worker.presence["id"] for each in worker.presences())


@pytest.mark.parametrize("typed", [("celery", "-A", "celerypipe"), ("celerypipe",)], ids=" ".join)
def test_sighup_starts_it_anew_however_it_was_typed(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, typed: tuple[str, ...]
) -> None:
    queue = f"hup{len(typed)}"
    worker = start_worker(queue, pool="solo", config=CONFIG, typed=typed)
    reading = at_work(redis_url, queue, tmp_path, 1.0, 3)
    worker.process.send_signal(signal.SIGHUP)
    eventually(lambda: another_life(worker), "the next life of the worker")
    assert reading.payloads() == [1.0, 1.0, 1.0]
    assert (tmp_path / "diary").read_text() == "1.0\n" * 3  # what was at work ended first


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_when_it_starts_stays_ignored(
    start_worker: StartWorker, redis_url: str, number: signal.Signals
) -> None:
    def ignoring() -> None:
        signal.signal(number, signal.SIG_IGN)  # as nohup does, and a shell for what it starts in the background

    queue = f"ign{number}"
    worker = start_worker(queue, pool="threads", concurrency=1, config=CONFIG, preexec_fn=ignoring)
    worker.process.send_signal(number)
    (out,) = Runner(redis_url).stream(warped("tests.nodes.remote.Echo", queue), [Message(1)])
    assert out.payload == 1
    assert "it ends when" not in worker.text()
    assert not another_life(worker)


def test_a_terminal_that_is_closed_ends_it_when_what_is_at_work_has_ended(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    terminal = Terminal()
    worker = start_worker("tty", pool="prefork", concurrency=1, config=CONFIG, **terminal.how)
    reading = at_work(redis_url, "tty", tmp_path, 2.0)
    terminal.close()
    assert reading.payloads() == [2.0]
    assert worker.wait_for_end() == 0
    assert (tmp_path / "diary").read_text() == "2.0\n"
