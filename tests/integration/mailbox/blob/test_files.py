"""Files in payloads: from the runner's machine to real workers, by their content."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celerypipe import Message, NodeFailed, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.message.files import PIECE
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, connect
from tests.nodes import filing
from tests.nodes.filing import CONFIG, made
from tests.runs.pipelines import warped
from tests.runs.reading import results
from tests.servers import POOLS, RedisServer, StartWorker, eventually
from tests.servers.extent import LONG


@pytest.mark.parametrize(("pool", "slots"), POOLS if LONG else [("prefork", 2)])
def test_a_file_arrives_at_any_depth_once_for_each_worker_and_goes_with_it(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, pool: str, slots: int
) -> None:
    base = tmp_path / "base"
    env = {"CELERYPIPE_FILES": str(base)}
    worker = start_worker(f"f{pool}", pool=pool, concurrency=slots, config=CONFIG, env=env)
    large, small = made(tmp_path, "large.nii.gz", PIECE + 9), made(tmp_path, "small")
    payloads = [[large], {"deep": ({"file": large}, [small])}] * 10
    found = results(Runner(redis_url), warped("tests.nodes.filing.Read", f"f{pool}"), payloads)
    content = {file.digest: file.path.read_bytes() for file in (large, small)}
    for payload, read in zip(payloads, found, strict=True):
        for file, (path, data, mode, pid) in zip(filing.files_in(payload), read, strict=True):
            assert data == content[file.digest]
            assert Path(path).parent.parent == base
            assert path.endswith(".nii.gz") == (file is large)
            assert mode == "0o400"
            assert pid != os.getpid()
    paths = {path for read in found for path, *_ in read}
    assert len(paths) == 2  # for all processes of the worker
    worker.stop()
    assert not list(base.iterdir())


def test_a_content_is_sent_once_and_lives_as_long_as_its_run(
    shared_worker: StartWorker, redis_url: str, redis_client: Client, tmp_path: Path
) -> None:
    shared_worker("fsolo", pool="solo", concurrency=1, config=CONFIG)
    file = made(tmp_path, "a.bin")
    name = keys.USUAL.file(file.digest)
    proceed = threading.Event()

    def messages() -> Iterator[Message]:
        yield Message([file])
        assert proceed.wait(30)
        yield Message([file])

    stream = Runner(redis_url).stream(warped("tests.nodes.filing.Length", "fsolo"), messages())
    assert next(stream).payload == [1000]
    redis_client.pexpire(name, 20_000)
    eventually(lambda: redis_client.pttl(name) > 30_000, "the renewal of a file")
    (tmp_path / "a.bin").unlink()  # nobody reads it again
    proceed.set()
    assert [message.payload for message in stream] == [[1000]]


def test_a_node_that_only_passes_a_file_on_fetches_nothing(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    start_worker("fpass", pool="solo", config=CONFIG, env={"CELERYPIPE_FILES": str(base)})
    file = made(tmp_path, "a.bin")
    (back,) = results(Runner(redis_url), warped("tests.nodes.filing.Pass", "fpass"), [file])
    assert back == file
    assert os.fspath(back) == os.fspath(file)  # it is here again
    assert not base.exists()


def test_a_file_goes_through_a_chain(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("fsolo", pool="solo", concurrency=1, config=CONFIG)
    nodes = [
        NodeDefinition(name=name, mark=mark, warped=True, warp_configuration={"queue": "fsolo"})
        for name, mark in (("first", filing.Pass), ("second", filing.Pass), ("third", filing.Length))
    ]
    pipeline = Pipeline(name="chain", nodes=nodes, links=[("first", "second"), ("second", "third")])
    files = [made(tmp_path, f"{number}.bin", number) for number in range(40)]
    assert results(Runner(redis_url), pipeline, [[file] for file in files]) == [[number] for number in range(40)]


@pytest.mark.parametrize("is_warped", [True, False])
def test_a_node_that_runs_here_gets_the_file_itself(tmp_path: Path, is_warped: bool) -> None:
    file = made(tmp_path, "a.bin")
    node = NodeDefinition(name="there", mark=filing.Read, warped=is_warped, warp_configuration={"queue": "nowhere"})
    pipeline = Pipeline(name="test", nodes=[node], links=[])
    ((read,),) = results(Runner(local=True), pipeline, [{"file": file}])
    assert read[0] == os.fspath(file)


def test_a_file_that_was_changed_fails_its_message_alone(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("fsolo", pool="solo", concurrency=1, config=CONFIG)
    good, changed = made(tmp_path, "good.bin"), made(tmp_path, "changed.bin")
    (tmp_path / "changed.bin").write_bytes(b"other")
    runner = Runner(redis_url)
    assert results(
        runner, warped("tests.nodes.filing.Length", "fsolo", on_error="skip"), [[good], [changed], [good]]
    ) == [
        [1000],
        [1000],
    ]
    with pytest.raises(NodeFailed, match=r"changed\.bin was changed after celerypipe\.file\(\)"):
        results(runner, warped("tests.nodes.filing.Length", "fsolo"), [[changed]])


def test_a_file_that_is_made_on_a_worker_does_not_come_back(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("fsolo", pool="solo", concurrency=1, config=CONFIG)
    with pytest.raises(NodeFailed, match="was made on this worker, and files travel there; send its bytes"):
        results(Runner(redis_url), warped("tests.nodes.filing.Make", "fsolo"), [str(tmp_path / "made")])


def test_a_redis_that_lost_everything_gets_the_file_again(
    private_redis: RedisServer, start_worker: StartWorker, tmp_path: Path
) -> None:
    file = made(tmp_path, "a.bin")
    sent: list[Any] = []
    pipeline = warped("tests.nodes.filing.Length", "flost")
    reader = threading.Thread(target=lambda: sent.extend(results(Runner(private_redis.url), pipeline, [[file]])))
    reader.start()
    with connect(private_redis.url) as client:
        eventually(lambda: client.exists(keys.USUAL.file(file.digest)), "the file")
        client.flushall()
        start_worker("flost", url=private_redis.url, pool="solo", config=CONFIG)
        reader.join(40)
    assert sent == [[1000]]


def test_files_and_consoles_travel_signed_and_to_processes_that_inherit_nothing(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "a key of the tests that is known"
    monkeypatch.setenv("CELERYPIPE_KEYS", key)
    base = tmp_path / "base"
    worker = start_worker(
        "fspawn",
        pool="prefork",
        concurrency=2,
        config='worker_pool_start_method = "spawn"\n' + CONFIG,
        env={"CELERYPIPE_KEYS": key, "CELERYPIPE_FILES": str(base)},
    )
    file = made(tmp_path, "a.bin")
    runner = Runner(redis_url)
    pipeline = warped("tests.nodes.filing.Say", "fspawn", console=True, folder=str(tmp_path / "pipe"))
    assert results(runner, pipeline, [[file]] * 6) == [None] * 6
    lines = (tmp_path / "pipe" / "there" / "console.jsonl").read_text().splitlines()
    assert [json.loads(line)["lines"][0][1:] for line in lines] == [["stdout", "a.bin 1000\n"]] * 6
    assert len(list(base.iterdir())) == 1
    worker.stop()
    assert not list(base.iterdir())
