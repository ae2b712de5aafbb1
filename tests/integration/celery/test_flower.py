"""Flower shows the workers and, under the mark of each node, its activations."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from celerypipe.celery.application import make_app
from tests.servers import ROOT, eventually

NODES = """
from celerypipe import node

@node
def half(value, by: int = 2):
    return value / by
"""


@pytest.fixture
def flower(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A running ``celery -A celerypipe flower`` behind a unix socket, and a client for it."""
    place = tmp_path / "flower.sock"
    environment = {
        **os.environ,
        "CELERYPIPE_REDIS_URL": redis_url,
        "PYTHONPATH": str(ROOT),
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    log = tmp_path / "flower.log"
    command = [sys.executable, "-m", "celery", "-A", "celerypipe", "flower", f"--unix-socket={place}"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=file, stderr=file)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), base_url="http://flower", timeout=20) as client:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            return place.exists() and client.get("/healthcheck").status_code == 200

        eventually(answers, "an answer of Flower")
        yield client
    process.terminate()
    process.wait(20)


def test_flower_shows_workers_and_activations_with_short_arguments(
    start_worker: Callable[..., Any], workplace: Any, redis_url: str, flower: httpx.Client
) -> None:
    workplace.module("work.shown", NODES)
    workplace.config("shown", 'imports = ["work.shown"]\nworker_pool = "solo"\n')
    worker = start_worker("shown", cwd=workplace.folder)
    name = f"shown.{worker.process.pid}@"

    def known() -> bool:
        workers = flower.get("/api/workers", params={"refresh": "1"}).json()
        return any(found.startswith(name) and "shown" in str(workers[found]) for found in workers)

    eventually(known, "the worker in Flower")

    bell = ["run-that-is-over", "halves", 0, "token"]
    asking = make_app({"CELERYPIPE_REDIS_URL": redis_url})
    sent = asking.send_task("work.shown.half", bell, queue="shown", retry=False)

    def finished() -> dict[str, Any]:
        answer = flower.get(f"/api/task/info/{sent.id}")
        task = answer.json() if answer.status_code == 200 else {}
        return task if task.get("state") == "SUCCESS" else {}

    task = eventually(finished, "the activation in Flower")
    assert task["name"] == "work.shown.half"
    assert task["worker"].startswith(name)
    assert "'halves'" in task["args"]
    assert len(task["args"]) < 200
