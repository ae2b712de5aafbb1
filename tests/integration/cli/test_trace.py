"""Where a message spent its time: kept for the slowest and the failed, while a run goes on and afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from celerypipe import Message, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.redis.connection import connect
from celerypipe.runner.stations.traces import OPEN, SLOWEST, Traces
from tests.nodes.faulty import CONFIG as FAULTY
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import chain, warped
from tests.servers import StartWorker, eventually
from tests.servers.command import begin, celerypipe


def pipeline(queue: str, folder: Path | None = None, **options: Any) -> Pipeline:
    """A warped node that naps as long as its message says, and one that runs here."""
    nap = NodeDefinition(
        name="nap",
        type="proc",
        mark="tests.nodes.remote.Nap",
        warped=True,
        warp_configuration={"queue": queue, **options.pop("limits", {})},
        **options,
    )
    here = NodeDefinition(name="here", type="proc", mark="passthrough_identity")
    return Pipeline(name="p", nodes=[nap, here], links=[("nap", "here")], folder=str(folder) if folder else None)


def test_the_slowest_message_is_shown_node_by_node(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("ltrace", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url)
    payloads = [0.0] * 100 + [0.4] + [0.0] * 100
    list(runner.stream(pipeline("ltrace", tmp_path), [Message(each) for each in payloads]))
    assert runner.report is not None
    run = runner.report.run
    for where in ([run, "--redis", redis_url], [str(tmp_path)]):
        slowest = json.loads(celerypipe("trace", *where, "--slowest", "3", "--json").stdout)
        assert [path["seconds"] for path in slowest] == sorted((path["seconds"] for path in slowest), reverse=True)
        (path,) = json.loads(celerypipe("trace", *where, "100", "--json").stdout)
        nap = next(hop for hop in path["hops"] if hop["node"] == "nap")
        assert {hop["node"] for hop in path["hops"]} == {"nap", "here"}
        assert nap["parts"]["run"] >= 0.35
    shown = celerypipe("trace", run, "100", "--redis", redis_url)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("message ")
    assert "(number 100)" in lines[0]
    assert any(line.strip().startswith("nap: ") and ", process " in line for line in lines)
    bars = [line for line in lines if line.strip().startswith("run ")]
    assert "█" in bars[0]
    assert all(len(line) <= 80 for line in lines if not line.startswith("message")), lines
    unknown = celerypipe("trace", run, "nonsense", "--redis", redis_url)
    assert unknown.returncode == 2
    assert "nothing is kept of message 'nonsense'" in unknown.stderr
    assert celerypipe("trace", "nonsense", "--redis", redis_url).returncode == 2
    assert celerypipe("trace", run, "100", "--slowest", "2", "--redis", redis_url).returncode == 2
    assert "no folder of a pipeline" in celerypipe("trace", str(tmp_path / "nap")).stderr


def test_each_attempt_is_in_it(start_worker: StartWorker, redis_url: str) -> None:
    start_worker("ltraceslow", pool="prefork", concurrency=1, config=CONFIG)
    runner = Runner(redis_url)
    asked = pipeline("ltraceslow", timeout=0.3, retries=1, on_error="skip", limits={"backoff": 0.01})
    list(runner.stream(asked, [Message(30.0), Message(0.0)]))
    assert runner.report is not None
    shown = celerypipe("trace", runner.report.run, "0", "--redis", redis_url)
    assert shown.stdout.count("attempt failed after") == 2, shown.stdout
    assert shown.stdout.count(": timeout") == 2
    assert "nap: " in shown.stdout


def test_a_run_that_goes_on_answers(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("ltrace", pool="solo", concurrency=1, config=CONFIG)
    nodes = [
        {"name": "numbers", "type": "source", "mark": "data_streamer", "configuration": {"count": 100_000, "rate": 50}},
        {
            "name": "far",
            "type": "proc",
            "mark": "tests.nodes.remote.Echo",
            "warped": True,
            "warp_configuration": {"queue": "ltrace"},
        },
    ]
    links = [{"from": "numbers", "to": "far"}]
    file = tmp_path / "pipeline.json"
    file.write_text(
        json.dumps({"version": "1.0", "pipeline": {"name": "tp", "id": "p", "nodes": nodes, "links": links}})
    )
    running = begin("run", file, "--redis", redis_url, cwd=tmp_path)

    def going_on() -> list[str]:
        runs = json.loads(celerypipe("status", "--json", "--redis", redis_url).stdout)["runs"]
        return [each["id"] for each in runs if each["state"] == "running" and each["pipeline"] == "tp"]

    run = eventually(going_on, "the run")[0]
    eventually(
        lambda: "far: " in celerypipe("trace", run[:8], "--redis", redis_url).stdout, "the trace of a run that goes on"
    )
    assert celerypipe("cancel", run, "--redis", redis_url).returncode == 0
    running.finish()


def test_it_is_bounded() -> None:
    traces = Traces()
    for number in range(50_000):
        message = Message(sequence=number)
        for node in ("a", "b", "c"):
            traces.came(node, message)
            if number % 7 or node != "b":
                traces.through(node, message, "done" if number % 11 else "failed")
    assert len(traces._open) <= OPEN
    kept = traces.to_list()
    assert SLOWEST <= len(kept) <= 9 * SLOWEST
    assert all(len({(hop["node"], hop["message"]) for hop in path["hops"]}) == len(path["hops"]) for path in kept)


@pytest.mark.parametrize("text", ["5", "{}", '[{"number": 1}]', '[{"origin": "a", "number": 0, "hops": [1]}]', "\\xff"])
def test_what_is_no_trace_is_said(redis_url: str, tmp_path: Path, text: str) -> None:
    (tmp_path / "trace.json").write_text(text)
    with connect(redis_url) as client:
        client.set(client.names.trace("strange"), text, ex=60)
    for words in ((tmp_path,), ("strange", "--redis", redis_url)):
        done = celerypipe("trace", *words)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "holds no traces of a run" in done.stderr


def test_a_node_that_a_worker_went_on_to_by_itself_has_its_own_time(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("ltrace", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url)
    payloads = [0.0] * 60 + [0.4]
    list(runner.stream(chain("ltrace", "Echo", "Nap"), [Message(each) for each in payloads]))
    assert runner.report is not None
    (path,) = json.loads(celerypipe("trace", runner.report.run, "60", "--redis", redis_url, "--json").stdout)
    first, second = (next(hop for hop in path["hops"] if hop["node"] == name) for name in ("n0", "n1"))
    assert second["parts"]["run"] >= 0.4
    assert second["seconds"] >= 0.4
    assert first["done"] <= second["done"] - 0.4, "it had handed it on by then"
    assert path["seconds"] >= 0.4


def test_the_try_of_a_process_that_was_killed_is_in_it(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    start_worker("ltracekill", pool="prefork", concurrency=1, config=FAULTY)
    runner = Runner(redis_url)
    asked = warped("tests.nodes.faulty.Hangs", "ltracekill", configuration={"once": str(tmp_path / "once")})
    assert [message.payload for message in runner.stream(asked, [Message("kill")])] == ["kill"]
    assert runner.report is not None
    (path,) = json.loads(celerypipe("trace", runner.report.run, "0", "--redis", redis_url, "--json").stdout)
    (hop,) = path["hops"]
    (lost,) = hop["attempts"]
    assert (lost["error"], hop["outcome"]) == ("lost", "done")
    shown = celerypipe("trace", runner.report.run, "0", "--redis", redis_url).stdout
    assert shown.count(", process ") == 2, shown
    assert len({line.rpartition(", process ")[2] for line in shown.splitlines() if ", process " in line}) == 2, shown
