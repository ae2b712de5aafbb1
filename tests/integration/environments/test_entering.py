"""A worker goes on in the environment of its queue, as the same process."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from celerypipe import Message, NodeDefinition, Pipeline, Runner
from celerypipe.environments.stored import environments_in
from celerypipe.mailbox import hints
from celerypipe.redis.connection import Client
from tests.servers import Workplace, eventually
from tests.servers.command import celerypipe
from tests.servers.extent import at_length
from tests.servers.wheels import Wheels, wheels

__all__ = ["wheels"]

NODES = """
import os, sys
from celerypipe import node

@node
def where(payload):
    import clash
    return [clash.VERSION, sys.prefix, os.environ["VIRTUAL_ENV"], os.environ["PATH"].split(os.pathsep)[0], os.getpid()]
"""


@pytest.fixture
def started(workplace: Workplace, wheels: Wheels, start_worker: Callable[..., Any]) -> Callable[..., Any]:
    """Start a worker of a queue of a project with environments, as ``-Q`` has it; ``one``: what that one asks for."""
    workplace.module("work.there", NODES)

    def start(queue: str, one: str = "clash==1", **how: Any) -> Any:
        text = 'imports = ["work.there"]\nworker_pool = "solo"\n'
        text += wheels.table("environment", "clash==2") + wheels.table("environments.one", one)
        workplace.config(queue.partition("+")[0], text)
        return start_worker(queue, cwd=workplace.folder, env=wheels.around, **how)

    return start


def asked(url: str, queue: str, environment: str | None) -> list[Any]:
    """What the node says of where it runs."""
    there = NodeDefinition(
        name="there",
        type="proc",
        mark="work.there.where",
        warped=True,
        warp_configuration={"queue": queue, "environment": environment, "timeout": 30},
    )
    with Runner(url) as runner:
        (answer,) = runner.stream(Pipeline(name="asks", nodes=[there]), [Message()])
    return list(answer.payload)


def preflight(workplace: Workplace, url: str, queue: str) -> str:
    """What ``celerypipe check --live`` says of a pipeline for this queue."""
    where = {"queue": queue.partition("+")[0], "environment": queue.partition("+")[2]}
    there = {"name": "there", "type": "proc", "mark": "work.there.where", "warped": True, "warp_configuration": where}
    file = workplace.folder / "asks.json"
    file.write_text(json.dumps({"version": "1.0", "pipeline": {"name": "asks", "nodes": [there], "links": []}}))
    done = celerypipe("check", file, "--live", "--redis", url, cwd=workplace.folder)
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("environment", "version", "typed"),
    [("one", 1, ("celery", "-A", "celerypipe")), pytest.param(None, 2, ("celerypipe",), marks=at_length)],
    ids=["named", "of-the-queue"],
)
def test_a_worker_runs_where_its_requirements_are(
    started: Callable[..., Any], redis_url: str, wheels: Wheels, environment: str | None, version: int, typed: Any
) -> None:
    queue = f"entering{version}"
    worker = started(f"{queue}+{environment}" if environment else queue, typed=typed)
    (there,) = environments_in(wheels.built)
    folder = str(there.place.folder)
    answer = asked(redis_url, queue, environment)
    assert answer == [version, folder, folder, f"{folder}/bin", worker.process.pid]
    assert there.busy
    worker.stop()
    worker = started(f"{queue}+{environment}" if environment else queue, typed=typed)
    command = Path(f"/proc/{worker.process.pid}/cmdline").read_text().split("\0")
    assert command[:4] == [f"{folder}/bin/python", "-m", "celerypipe", "worker"], "at once, by the sooner way"
    assert asked(redis_url, queue, environment)[1] == folder
    refused = celerypipe("environments", "rm", there.key, cwd=wheels.folder, **wheels.around)
    assert (refused.returncode, "is in use; stop its workers first" in refused.stderr) == (2, True)
    worker.stop()
    eventually(lambda: not there.place.is_busy(), "the end of its last process")
    assert celerypipe("environments", "rm", there.key, cwd=wheels.folder, **wheels.around).returncode == 0
    assert environments_in(wheels.built) == []


def test_one_that_cannot_be_built_is_what_a_waiting_run_hears_until_a_worker_is_there(
    started: Callable[..., Any], workplace: Workplace, redis_url: str, redis_client: Client
) -> None:
    queue = "unbuilt+one"
    worker = started(queue, one="clash==3", wait=False)
    assert worker.wait_for_end() == os.EX_CONFIG
    assert "environment 'one' (Python 3." in worker.text()
    assert "clash==3" in worker.text()
    told = preflight(workplace, redis_url, queue)
    assert f"no live worker serves queue {queue!r}: the worker that {socket.gethostname()} was to start ended:" in told
    assert "clash==3" in told.partition("The builder said last:")[2]
    started(queue, one="clash==2")
    eventually(lambda: not hints.unbuilt(redis_client, queue), "the end of that")
    assert "no live worker" not in preflight(workplace, redis_url, queue)


def test_queues_of_different_environments_need_a_worker_each(started: Callable[..., Any]) -> None:
    worker = started("several+one,several", wait=False)
    assert worker.wait_for_end() == os.EX_CONFIG
    assert "a worker runs in one environment, and queue 'several+one' wants environment 'one'" in worker.text()


def test_a_name_that_nobody_wrote_is_answered_with_those_there_are(started: Callable[..., Any]) -> None:
    worker = started("names+oen", wait=False)
    assert worker.wait_for_end() == os.EX_CONFIG
    assert "no [environments.oen] in worker_configs/names.toml; did you mean 'one'?" in worker.text()


def test_an_environment_that_leads_elsewhere_is_not_entered_again_and_again(
    started: Callable[..., Any], workplace: Workplace, wheels: Wheels
) -> None:
    file = workplace.config("loops", wheels.table("environments.one", "clash==1"))
    assert celerypipe("environments", "build", file, cwd=wheels.folder, **wheels.around).returncode == 0
    (there,) = environments_in(wheels.built)
    there.place.python.unlink()
    there.place.python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    there.place.python.chmod(0o755)
    worker = started("loops+one", wait=False)
    assert worker.wait_for_end() == os.EX_CONFIG
    assert "celerypipe environments rm" in worker.text()
