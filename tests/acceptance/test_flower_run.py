"""A real run, seen from Flower: a task under the node's mark, with short arguments."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from celerypipe import Message, Pipeline, Runner
from tests.nodes import remote
from tests.runs.pipelines import warped
from tests.servers import StartWorker, eventually
from tests.servers.command import celerypipe

SECRET = "payload-bytes-" * 200


def test_a_run_shows_in_flower_as_a_task_under_its_mark(
    start_worker: Callable[..., Any], redis_url: str, flower: httpx.Client, tmp_path: Path
) -> None:
    worker = start_worker("flowerrun", pool="solo")
    name = f"flowerrun.{worker.process.pid}@"

    def known() -> bool:
        workers = flower.get("/api/workers", params={"refresh": "1"}).json()
        return any(found.startswith(name) for found in workers)

    eventually(known, "the worker in Flower")

    definition = tmp_path / "pipeline.json"
    nodes = [
        {"name": "src", "type": "source", "mark": "data_streamer", "configuration": {"items": [SECRET], "rate": 0}},
        {
            "name": "there",
            "type": "proc",
            "mark": "passthrough_identity",
            "warped": True,
            "warp_configuration": {"queue": "flowerrun", "timeout": 30},
        },
        {"name": "out", "type": "sink", "mark": "json_lines", "configuration": {"path": str(tmp_path / "out.jsonl")}},
    ]
    links = [{"from": "src", "to": "there"}, {"from": "there", "to": "out"}]
    definition.write_text(json.dumps({"version": "1", "pipeline": {"name": "seen", "nodes": nodes, "links": links}}))
    done = celerypipe("run", definition, "--redis", redis_url, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.jsonl").read_text()) == SECRET
    run = json.loads(done.stdout)["run"]

    def finished() -> list[dict[str, Any]]:
        tasks = flower.get("/api/tasks", params={"taskname": "passthrough_identity"}).json().values()
        ours = [task for task in tasks if run in str(task.get("args"))]
        return ours if ours and all(task["state"] == "SUCCESS" for task in ours) else []

    for task in eventually(finished, "the run in Flower"):
        assert task["name"] == "passthrough_identity"
        assert task["worker"].startswith(name)
        assert re.fullmatch(rf"\(run='{run}', node='there', slot=\d\)", task["args"])
        assert task["kwargs"] == "{}"
        assert "payload-bytes" not in json.dumps(task)


#: What Flower's buttons ask for; what it answers: refused (403), or harmless.
BUTTONS = {
    "worker/pool/grow/{worker}": r"200 .*Growing",
    "worker/pool/shrink/{worker}?n=1": r"200 .*Shrinking|403 .*All processes busy",
    "worker/pool/shrink/{worker}?n=9": r"403 .*pool_shrink is refused: no process would be left",
    "worker/pool/autoscale/{worker}?min=1&max=3": r"403 .*autoscale is refused: this worker was started without",
    "worker/pool/restart/{worker}": r"403 .*pool_restart is refused: a restart imports whatever modules",
    "worker/queue/add-consumer/{worker}?queue=other": r"403 .*add_consumer is refused: a worker serves the queues",
    "worker/queue/cancel-consumer/{worker}?queue=buttons": r"403 .*cancel_consumer is refused: a worker serves its",
    "task/timeout/{mark}?workername={worker}&hard=1": r"404 .*",
    "task/rate-limit/{mark}?workername={worker}&ratelimit=1/m": r"404 .*",
    "task/revoke/{task}": r"200 .*Revoked",
    "task/revoke/{task}?terminate=true&signal=SIGKILL": r"200 .*Revoked",
    "task/revoke/{task}?terminate=true": r"200 .*Revoked",
}


def test_no_button_of_flower_costs_a_message_that_is_in_hand(
    start_worker: StartWorker, redis_url: str, flower: httpx.Client, tmp_path: Path
) -> None:
    worker = start_worker("buttons", pool="prefork", concurrency=2, config=remote.CONFIG)
    name, mark = f"buttons.{worker.process.pid}@{socket.gethostname()}", "tests.nodes.remote.Gate"
    gate, diary = tmp_path / "gate", tmp_path / "diary"
    eventually(lambda: name in flower.get("/api/workers", params={"refresh": "1"}).json(), "the worker in Flower")

    def run(pipeline: Pipeline, payloads: list[Any]) -> list[Any]:
        return [message.payload for message in Runner(redis_url).stream(pipeline, map(Message, payloads))]

    def press(path: str) -> str:
        answer = flower.post(f"/api/{path}")
        return "" if "Unknown reason" in answer.text else f"{answer.status_code} {answer.text}"  # no answer in a second

    with ThreadPoolExecutor(1) as pool:
        payloads = [str(gate), *range(20)]
        out = pool.submit(run, warped(mark, "buttons"), payloads)
        try:
            found = {"taskname": mark, "state": "STARTED"}
            task = next(iter(eventually(lambda: flower.get("/api/tasks", params=found).json(), "a task in Flower")))
            for button, said in BUTTONS.items():
                path = button.format(worker=name, mark=mark, task=task)
                answer = eventually(lambda path=path: press(path), f"an answer to {path}")
                assert re.match(said, answer, re.DOTALL), (path, answer)
            worker.wait_for_text("refused revoke: SIGKILL would count as a fault of its message")
        finally:
            gate.touch()
        assert out.result(30) == payloads
        assert "ended: killed" not in worker.text()

        out = pool.submit(run, warped("tests.nodes.remote.Nap", "buttons", configuration={"diary": str(diary)}), [1])
        eventually(diary.exists, "the message in hand")
        assert flower.post(f"/api/worker/shutdown/{name}").status_code == 200
        assert out.result(30) == [1]
    assert worker.wait_for_end() == 0
