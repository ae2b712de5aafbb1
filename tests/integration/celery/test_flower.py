"""Flower shows the workers and, under the mark of each node, its activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from celerypipe.celery.application import make_app
from tests.servers import eventually

NODES = """
from celerypipe import node

@node
def half(value, by: int = 2):
    return value / by
"""


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

    bell = [[1, 1], "run-that-is-over", "halves", 0, "token"]
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
