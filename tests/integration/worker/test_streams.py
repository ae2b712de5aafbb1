"""What a node finds behind ``sys.stdout`` on a worker is what it finds here, and its lines go to the worker's log."""

from __future__ import annotations

import json
import re
import socket

import pytest

from celerypipe import Message, NodeFailed, Runner
from tests.nodes import printing
from tests.runs.pipelines import warped
from tests.servers import FEW_POOLS, StartWorker, eventually

#: When a line was written.
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"


@pytest.mark.parametrize(("pool", "slots"), FEW_POOLS)
def test_the_streams_of_a_worker_are_files_and_their_lines_are_logged(
    start_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    worker = start_worker("streams", pool=pool, concurrency=slots, config=printing.CONFIG)
    with Runner(redis_url) as there, Runner(local=True) as here:
        for runner in (here, there):
            assert runner.submit(printing.uses_streams).result(30) == printing.USES
    eventually(lambda: "from a thread 3" in worker.text(), "all that was printed")
    lines = worker.text().splitlines()
    assert {"from a process", "bytes"} <= set(lines), "they write to the descriptor themselves"
    for text in ("frame 3 of 5", "half a line", "from a fork"):
        found = [line for line in lines if text in line]
        assert len(found) == 1, (text, found)
        assert re.search(
            rf"^\[{STAMP}: WARNING/\w+(-\d+)?\] run \w+ node uses_streams message [\w-]+: {text}$", found[0]
        )
    for number in range(4):
        assert len([line for line in lines if re.search(rf": WARNING/[\w-]+\] from a thread {number}$", line)]) == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_log_of_json_has_an_object_a_line(start_worker: StartWorker, redis_url: str, pool: str) -> None:
    typed = {"prefork": {"arguments": ["--log-format", "json"]}, "threads": {"env": {"CELERYPIPE_LOG_FORMAT": "json"}}}
    worker = start_worker("streams", pool=pool, concurrency=1, config=printing.CONFIG, **typed[pool])
    with Runner(redis_url) as runner, pytest.raises(NodeFailed):
        list(runner.stream(warped("tests.nodes.printing.Moody", "streams"), [Message("raise")]))
    worker.stop()
    said = [json.loads(line) for line in worker.text().splitlines()]
    keys = "time level logger process pid worker run node message text exception"
    assert {" ".join(line) for line in said} == {keys}
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in said)
    (printed,) = (line for line in said if line["text"] == "before raise")
    (failed,) = (line for line in said if line["text"] == "ValueError: no good")
    assert printed["worker"] == failed["worker"] == f"streams.{worker.process.pid}@{socket.gethostname()}"
    assert printed["run"] == failed["run"] is not None
    assert printed["node"] == failed["node"] == "there"
    assert printed["message"] == failed["message"] is not None
    assert failed["exception"].endswith("ValueError: no good")
    (through,) = (line for line in said if "1 message, 1 failed" in line["text"])
    assert (through["node"], through["message"]) == ("there", None)


def test_lines_go_to_the_file_of_the_log_and_redirection_can_be_switched_off(
    start_worker: StartWorker, redis_url: str, tmp_path: object
) -> None:
    log = f"{tmp_path}/log"
    worker = start_worker("streams", pool="solo", config=printing.CONFIG, arguments=["-f", log])
    with Runner(redis_url) as runner:
        runner.submit(printing.uses_streams).result(30)
        worker.stop()
        with open(log) as file:
            assert "frame 3 of 5" in file.read()
        assert "bytes" in worker.text()
        assert "frame" not in worker.text()
        plain = f"{printing.CONFIG}worker_redirect_stdouts = false\n"
        worker = start_worker("streams", pool="prefork", concurrency=1, config=plain)
        assert runner.submit(printing.uses_streams).result(30) == printing.USES
    worker.stop()
    assert "frame 3 of 5" in worker.text().splitlines()
