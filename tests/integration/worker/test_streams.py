"""What a node finds behind ``sys.stdout`` on a worker is what it finds here, and its lines go to the worker's log."""

from __future__ import annotations

import re

import pytest

from celerypipe import Runner
from tests.nodes import printing
from tests.servers import POOLS, StartWorker, eventually


@pytest.mark.parametrize(("pool", "slots"), POOLS)
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
        assert re.search(rf"WARNING \[streams\] run \w+ node uses_streams message [\w-]+: {text}$", found[0])
    for number in range(4):
        assert len([line for line in lines if line.endswith(f"WARNING [streams] from a thread {number}")]) == 1


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
