"""A node that kills its process: its message is given up, the error says how and where, and the rest goes on."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celerypipe import NodeFailed, Runner, WorkerLost
from celerypipe.mailbox.deaths import Death, OutOfMemory, as_text, say_birth, say_death
from celerypipe.mailbox.holder import Holder
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.wire import packed_entry
from celerypipe.message.message import new_id
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.script import call
from tests.nodes.faulty import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import results
from tests.servers import StartWorker, eventually
from tests.servers.processes import descendants

CGROUPS = Path("/sys/fs/cgroup/memory")


def given_up(folder: Path) -> list[dict[str, Any]]:
    """The dead letters of a run."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("dead_letters/*.json"))]


def test_what_kills_its_process_is_given_up_with_signal_or_status_and_worker(
    start_doomed: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    worker = start_doomed("dways", pool="prefork", concurrency=2, config=CONFIG)
    ways = {"exit": "exit status 3", "segfault": "killed by SIGSEGV", "abort": "killed by SIGABRT"}
    pipeline = warped("tests.nodes.faulty.Dies", "dways", on_error="dead_letter", folder=str(tmp_path))
    payloads = [each for way in ways for each in (*range(20), way)]
    assert results(Runner(redis_url), pipeline, payloads) == [*range(20)] * 3
    letters = given_up(tmp_path)
    assert {letter["error"] for letter in letters} == {"WorkerLost"}
    name = re.escape(f"dways.{worker.process.pid}@")
    for how in ways.values():
        wanted = rf"there: the process that ran it died 3 times: .*{how} \(process \d+(, \d+)* of worker {name}"
        assert any(re.search(wanted, letter["text"]) for letter in letters), letters


def test_under_stop_the_error_says_which_process_it_was(start_doomed: StartWorker, redis_url: str) -> None:
    worker = start_doomed("dstop", pool="prefork", concurrency=1, config=CONFIG)
    with pytest.raises(WorkerLost, match=r"died 3 times: killed by SIGKILL \(process \d+, \d+, \d+ of ") as raised:
        results(Runner(redis_url), warped("tests.nodes.faulty.Dies", "dstop"), ["kill"])
    last = raised.value.worker.rpartition(" ")[2]
    assert raised.value.worker == f"{worker.presence['host']}, process {last}"
    assert f", {last} of worker dstop.{worker.process.pid}@" in str(raised.value)
    assert f"process {last} of this worker ended: killed by SIGKILL" in worker.text()
    assert "Logging error" not in worker.text()


def test_what_a_limit_refuses_is_an_ordinary_failure(start_doomed: StartWorker, redis_url: str) -> None:
    start_doomed("dlimit", pool="prefork", concurrency=1, config=CONFIG)
    pipeline = warped("tests.nodes.faulty.Bounded", "dlimit", configuration={"limit": 200_000_000}, on_error="skip")
    assert results(Runner(redis_url), pipeline, [1, 2_000_000_000, 2]) == [1, 2]
    strict = warped("tests.nodes.faulty.Bounded", "dlimit", configuration={"limit": 200_000_000})
    with pytest.raises(NodeFailed, match="MemoryError"):
        results(Runner(redis_url), strict, [2_000_000_000])


@pytest.fixture
def small_memory() -> Iterator[Callable[[int], None]]:
    """Put processes into a control group with 300 MB."""
    group = CGROUPS / f"celerypipe-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("300000000")
    except OSError as error:
        pytest.skip(f"cannot make a control group here (it takes root and cgroup v1): {error}")
    yield lambda pid: (group / "cgroup.procs").write_text(f"{pid}\n") and None
    eventually(lambda: not (group / "cgroup.procs").read_text(), "the end of its processes")
    group.rmdir()


def test_the_kernel_ends_what_takes_too_much_memory_and_the_error_says_so(
    start_doomed: StartWorker, redis_url: str, small_memory: Callable[[int], None], tmp_path: Path
) -> None:
    worker = start_doomed("dmemory", pool="prefork", concurrency=1, config=CONFIG)
    for pid in (worker.process.pid, *descendants(worker.process.pid)):
        small_memory(pid)
    pipeline = warped("tests.nodes.faulty.Dies", "dmemory", on_error="dead_letter", folder=str(tmp_path))
    try:
        assert results(Runner(redis_url), pipeline, [1, "memory", 2]) == [1, 2]
    finally:
        worker.kill()
    (letter,) = given_up(tmp_path)
    assert "died 3 times: killed by SIGKILL for want of memory (the kernel's OOM killer) (process " in letter["text"]


def test_a_count_of_the_kernel_that_went_up_means_want_of_memory(tmp_path: Path) -> None:
    counter = tmp_path / "vmstat"
    counter.write_text("pgfault 12\noom_kill 3\nother 1\n")
    watched = OutOfMemory(counter)
    assert not watched.happened()
    counter.write_text("pgfault 15\noom_kill 4\n")
    assert watched.happened()
    assert not watched.happened()
    assert not OutOfMemory(tmp_path / "missing").happened()


def test_deaths_of_one_kind_are_said_together() -> None:
    same = Death(-signal.SIGSEGV, "gpu.1@box")
    deaths = [("box.11.a", same), ("box.12.a", same), ("my.far.box.13.b", Death(None)), ("box.14.c", Death(-64, "w"))]
    assert as_text(deaths) == (
        "killed by SIGSEGV (process 11, 12 of worker gpu.1@box); cause unknown (its whole worker died, or did "
        "not answer for seconds) (process 13 on my.far.box); killed by SIGRTMAX (process 14 of worker w)"
    )


def test_the_dead_hold_nothing(redis_client: Client) -> None:
    """Whoever comes takes their bells and their messages at once; a process of the same number is not dead."""
    mailbox, life = Mailbox(new_id(), "node"), secrets.token_hex(4)
    dead, living, again = f"my.box.1.t-{life}-a1.0", "my.box.1.t-b-b1.1", f"my.box.1.t-{life}-c1.0"
    place = str(Holder.read(dead).process)
    assert place == f"my.box.1.{life}"
    client = redis_client
    mailbox.make(client)
    call(client, mailbox.sending([packed_entry(0, 0, "", b"body")], token="t", wanted=0, ttl=1000))
    assert call(client, mailbox.taking(0, dead))
    assert call(client, mailbox.taking(1, living))
    (entry,) = mailbox.receive(client, dead, 1, None)
    assert mailbox.claim(client, living, 10) == []
    assert call(client, mailbox.ringing(token="u", wanted=2, ttl=1000)) == []
    say_death(client, place, Death(-9, "box"))
    assert mailbox.claim(client, living, 10) == [entry._replace(holder=dead)]
    assert call(client, mailbox.ringing(token="u", wanted=2, ttl=1000)) == [0]
    say_birth(client, place)
    assert call(client, mailbox.taking(0, again))
    assert not call(client, mailbox.taking(0, living))
    assert not client.exists(keys.USUAL.death(place))
