"""Fixtures of the whole suite; the servers they start are in :mod:`tests.servers`."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from celerypipe.process.log import at_work
from celerypipe.redis.connection import Client, connect
from tests.servers import RedisServer, RunningWorker, StartWorker, Workplace, Write, launch_worker
from tests.servers.flower import running_flower
from tests.servers.redis import DURABLE, TunedRedis
from tests.servers.worker import workers_folder
from tests.servers.zygote import zygote

# A shell that starts the tests in the background, or nohup, has these ignored; what the tests start would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Each process of a run collects all tests, which stay to its end: half of that time went into looking at them again.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """One of the processes of a run forks what it starts from the zygote of all."""
    if place := getattr(config, "workerinput", {}).get("zygote"):
        zygote.join(place)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of the tests where the zygote is."""
    node.workerinput["zygote"] = zygote.address


def pytest_unconfigure() -> None:
    """What the tests were forked from goes last."""
    zygote.close()


#: What waits for most of its time begins first: at the end of a run a processor would be idle for it.
LONGEST = (
    *("faults/test_stuck.py", "worker/activation/test_batches.py", "warp/test_warp.py", "faults/test_orphans.py"),
    *("host/test_host.py", "host/test_manager.py", "cli/test_hosts.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files in front."""
    items.sort(key=lambda item: not item.nodeid.partition("::")[0].endswith(LONGEST))


def pytest_collection_finish() -> None:
    """What is there now is looked at no more."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> None:
    """What the person at this desk has set must not decide a test."""
    for name in [name for name in os.environ if name.startswith(("CELERYPIPE_", "CELERY_"))]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """What a test leaves in its process: whose lines of the log are, and the folder of a project among the modules."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    at_work.set(None)


@pytest.fixture(scope="session", autouse=True)
def _clean_workers() -> Iterator[None]:
    """Workers' logs go when the session ends."""
    yield
    shutil.rmtree(workers_folder(), ignore_errors=True)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The address of a private Redis that the whole session shares: use names of your own in it, never flush it."""
    server = RedisServer().start()
    yield server.url
    server.remove()


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[Client]:
    """A client of the session's Redis."""
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def private_redis() -> Iterator[RedisServer]:
    """A Redis for one test, which may flush it, freeze it, kill it and start it again."""
    server = RedisServer().start()
    yield server
    server.remove()


@pytest.fixture
def durable_redis() -> Iterator[TunedRedis]:
    """A Redis that keeps its data through a kill."""
    server = TunedRedis(settings=DURABLE).start()
    yield server
    server.remove()


@pytest.fixture
def flower(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a running Flower of the session's Redis."""
    with running_flower(redis_url, tmp_path) as client:
        yield client


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file below the test's folder."""

    def write(path: str, text: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    return write


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    """What nodes computed. Its name is part of their configuration, so that each test asks questions of its own."""
    return tmp_path / "diary"


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """An empty folder for workers of one test: ``start_worker(..., cwd=workplace.folder)``."""
    return Workplace(tmp_path)


def _starting(url: str, workers: list[RunningWorker]) -> StartWorker:
    """Return what starts a worker, by default on this Redis, and adds it to those that were started."""

    def start(queue: str, **options: Any) -> RunningWorker:
        worker = launch_worker(queue, **{"url": url, **options})
        workers.append(worker)
        return worker

    return start


@pytest.fixture
def start_worker(redis_url: str) -> Iterator[StartWorker]:
    """Start workers that end with the test; arguments as :func:`launch_worker`, on the session's Redis."""
    workers: list[RunningWorker] = []
    yield _starting(redis_url, workers)
    for worker in workers:
        if worker.process.poll() is None:
            worker.stop()


@pytest.fixture
def start_doomed(redis_url: str) -> Iterator[StartWorker]:
    """As ``start_worker``, for workers that may be stuck, or dead, by the end of the test: what lives is killed."""
    workers: list[RunningWorker] = []
    yield _starting(redis_url, workers)
    for worker in workers:
        worker.kill()


#: Shared workers that a process of the tests keeps: as many as one test asks for. Each costs time while it waits.
KEPT = 4


@pytest.fixture(scope="session")
def shared_worker(redis_url: str) -> Iterator[StartWorker]:
    """As ``start_worker``, but a worker asked for with the same arguments is the same one; few at a time."""
    workers: dict[str, RunningWorker] = {}
    asked: dict[str, dict[str, Any]] = {}
    leaving: list[RunningWorker] = []

    def start(queue: str, **options: Any) -> RunningWorker:
        worker = workers.pop(queue, None)
        if worker is not None and asked[queue] != options:  # a queue has one: tests know how many slots there are
            worker.stop()
        if worker is None or worker.process.poll() is not None:
            worker = launch_worker(queue, **{"url": redis_url, **options})
        workers[queue], asked[queue] = worker, options  # behind all others
        if len(workers) > KEPT:
            leaving.append(workers.pop(next(iter(workers))))
            leaving[-1].tell_to_end()
        return worker

    yield start
    for worker in workers.values():
        worker.tell_to_end()
    for worker in (*leaving, *workers.values()):
        worker.stop()
