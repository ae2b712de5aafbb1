"""Compression on real workers: exact, really smaller in Redis, and nothing but a sentence where it goes wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import ConfigError, Message, NodeFailed, Pipeline, Runner
from celerypipe.codec import Content
from celerypipe.mailbox.blob import packing
from celerypipe.mailbox.blob.blob import Store
from celerypipe.redis.connection import Client
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import chain
from tests.runs.reading import Reading
from tests.runs.traces import memory_of, run_of
from tests.servers import ROOT, StartWorker, eventually

SIZE = 300_000
WAYS = ("lz4", "zstd")
PACKAGES = {"lz4": "lz4", "zstd": "zstandard"}


def compressing(queue: str, *stages: tuple[str, str], **options: Mapping[str, Any]) -> Pipeline:
    """A chain: mark and compression of each node; options of the node by its name."""
    return chain(queue, *((mark, {"compression": compression}) for mark, compression in stages), **options)


def waves(count: int) -> list[Message]:
    """Arrays that pack well, none like another."""
    return [Message((np.arange(SIZE) // 1000 + number).astype(np.uint8)) for number in range(count)]


class Watch(threading.Thread):
    """Notes the length of every blob of a run that it sees in Redis."""

    def __init__(self, client: Client, run: str) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.pattern = f"celerypipe:blob:{run}:*"
        self.lengths: dict[bytes, int] = {}
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.005):
            for name in list(self.client.scan_iter(self.pattern, count=1000)):
                if length := self.client.strlen(name):
                    self.lengths[name] = length

    def end(self) -> list[int]:
        self._over.set()
        self.join()
        return list(self.lengths.values())


def watched(url: str, client: Client, pipeline: Pipeline, messages: list[Message]) -> tuple[list[Any], list[int]]:
    """Run it; return the payloads that come out and the lengths of all blobs that were seen."""
    runner = Runner(url, shared_memory=False)
    stream = runner.stream(pipeline, messages)
    first = next(stream)
    watch = Watch(client, run_of(runner))
    return [first.payload, *(message.payload for message in stream)], watch.end()


@pytest.mark.parametrize("way", ["none", *WAYS])
def test_blobs_in_redis_are_as_small_as_the_definition_says(
    shared_worker: StartWorker, redis_url: str, redis_client: Client, way: str
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    slow = {"configuration": {"delay": 0.02}}
    pipeline = compressing("tsolo", ("Large", way), ("Echo", way), n1=slow)
    messages = waves(40)
    payloads, lengths = watched(redis_url, redis_client, pipeline, messages)
    for message, payload in zip(messages, payloads, strict=True):
        assert np.array_equal(payload, message.payload * 2)
    assert len(lengths) > 1  # of what goes to n0, and what goes on to n1, as many as were there when it looked
    assert max(lengths) < SIZE / 10 if way != "none" else min(lengths) >= SIZE


@pytest.mark.parametrize("ways", [("lz4", "zstd", "none"), ("none", "lz4", "zstd"), ("zstd", "none", "lz4")])
def test_nodes_that_pack_differently_read_each_other(
    shared_worker: StartWorker, redis_url: str, ways: tuple[str, str, str]
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = compressing("tsolo", *zip(("Large", "Echo", "Large"), ways, strict=True))
    noise = [Message(np.random.default_rng(seed).integers(0, 9, 1 << 17)) for seed in range(10)]
    small = [Message(np.arange(seed)) for seed in range(10)]
    messages = [*waves(20), *noise, *small]
    outputs = Runner(redis_url, shared_memory=False).stream(pipeline, messages)
    for message, output in zip(messages, outputs, strict=True):
        assert np.array_equal(output.payload, message.payload * 4)
        assert output.payload.dtype == message.payload.dtype
        assert output.meta["pid"] != os.getpid()


@pytest.mark.parametrize("way", WAYS)
def test_a_packed_payload_that_only_passes_through_is_not_packed_again(
    shared_worker: StartWorker, redis_url: str, redis_client: Client, way: str
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    slow = {"configuration": {"delay": 0.02}}
    pipeline = compressing("tsolo", ("Echo", way), ("Echo", "none"), ("Echo", "zstd"), n0=slow, n1=slow, n2=slow)
    messages = waves(20)
    payloads, lengths = watched(redis_url, redis_client, pipeline, messages)
    for message, payload in zip(messages, payloads, strict=True):
        assert np.array_equal(payload, message.payload)
    assert 1 < len(lengths) <= 20
    assert max(lengths) < SIZE / 10


def test_shared_memory_is_never_packed(shared_worker: StartWorker, redis_url: str, redis_client: Client) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url)
    stream = runner.stream(compressing("tsolo", ("Large", "zstd"), ("Large", "lz4")), waves(20))
    assert int(next(stream).payload[-1]) == 4 * (299 % 256) % 256
    memory = memory_of(runner)
    assert not list(redis_client.scan_iter(f"celerypipe:blob:{run_of(runner)}:*"))

    def smallest() -> int:
        files = [path for path in memory.iterdir() if path.is_file() and path.name != "lock"]
        return min((path.stat().st_size for path in files if path.exists()), default=SIZE)

    eventually(lambda: smallest() >= SIZE, "whole files")  # one of them may just be written
    assert len(list(stream)) == 19


# -- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_damaged_bytes_fail_their_message_only(
    start_worker: StartWorker, redis_url: str, redis_client: Client, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    pipeline = compressing(f"damaged-{way}", ("Echo", way), n0={"on_error": "skip"})
    runner = Runner(redis_url, shared_memory=False)
    reading = Reading(runner.stream(pipeline, waves(8)))

    def blobs() -> list[bytes]:
        run = runner._current.course.run_id if runner._current is not None else "none"
        found = list(redis_client.scan_iter(f"celerypipe:blob:{run}:*", count=1000))
        return found if len(found) == 8 else []

    names = eventually(blobs, "eight blobs")
    known = {name: redis_client.get(name) for name in names}
    for name, damage in zip(names, (known[names[0]][:-9], b"", b"no bytes of ours"), strict=False):
        redis_client.set(name, damage, keepttl=True)
    start_worker(f"damaged-{way}", pool="solo", config=CONFIG)
    assert len(reading.payloads()) == 5
    assert caplog.text.count(f"packed with {way}") == 3


def test_the_error_of_damaged_bytes_names_node_worker_and_cause(
    shared_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    put = Store.put

    def lying(store: Store, segments: Any, compression: str = "none") -> Any:
        reference, commands = put(store, segments, compression)
        assert reference.endswith(f":lz4:{SIZE}")
        return reference.replace(f":{SIZE}", f":{SIZE + 7}"), commands

    monkeypatch.setattr(Store, "put", lying)  # in the runner; the worker is another process
    with pytest.raises(NodeFailed, match=rf"n0: .*packed with lz4 hold {SIZE} bytes, not {SIZE + 7}") as caught:
        list(Runner(redis_url, shared_memory=False).stream(compressing("tsolo", ("Echo", "lz4")), waves(1)))
    assert caught.value.node == "n0"
    assert "process" in caught.value.worker


@pytest.mark.parametrize("lie", ["brotli:300000", "zstd:300001", "zstd:99999999999999999999", "lz4:2000000000"])
def test_a_result_that_cannot_be_unpacked_fails_its_message_only(
    shared_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    turns: list[str] = []

    def lied(label: str, content: Content) -> Content:
        turns.append(label)
        return unpack(lie if len(turns) % 2 else label, content)

    unpack = packing.unpack
    monkeypatch.setattr(packing, "unpack", lied)
    pipeline = compressing("tsolo", ("Large", "zstd"), n0={"on_error": "skip"})
    assert len(list(Runner(redis_url, shared_memory=False).stream(pipeline, waves(10)))) == 5
    assert len(turns) == 10
    with pytest.raises(NodeFailed, match="n0: its result cannot be read: "):
        list(Runner(redis_url, shared_memory=False).stream(compressing("tsolo", ("Large", "zstd")), waves(1)))


def test_what_a_worker_makes_of_a_reference_to_nothing(
    shared_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    put = Store.put
    monkeypatch.setattr(Store, "put", lambda *given: ("ab:1:2:3:4", put(*given)[1]))
    with pytest.raises(NodeFailed, match="'ab:1:2:3:4' refers to no payload"):
        list(Runner(redis_url, shared_memory=False).stream(compressing("tsolo", ("Echo", "lz4")), waves(1)))


def stubbed(folder: Path, way: str) -> dict[str, str]:
    """An environment in which the package of a way is there and cannot be imported."""
    (folder / f"{PACKAGES[way]}.py").write_text('raise ImportError("not for this machine")\n')
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_without_the_package_says_what_to_install(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, way: str
) -> None:
    queue = f"bare-{way}"
    worker = start_worker(queue, pool="solo", config=CONFIG, env=stubbed(tmp_path, way))
    small = Message(np.arange(10))
    runner = Runner(redis_url, shared_memory=False)
    assert len(list(runner.stream(compressing(queue, ("Echo", way)), [small]))) == 1  # nothing to pack in there
    host, pid = worker.presence["host"], worker.presence["pid"]
    sentence = rf"n0: .*not for this machine\): pip install {PACKAGES[way]} \(says worker {host}, process {pid}\)"
    with pytest.raises(ConfigError, match=sentence):  # it cannot read
        list(runner.stream(compressing(queue, ("Echo", way)), waves(1)))
    with pytest.raises(ConfigError, match=sentence):  # it cannot write
        list(runner.stream(compressing(queue, ("Grow", way)), [Message(SIZE)]))
    (grown,) = runner.stream(compressing(queue, ("Grow", "none")), [Message(SIZE)])
    assert grown.payload.size == SIZE
    several = chain(queue, ("GrowTogether", {"compression": way, "batch": {"size": 4, "wait": 0.2}}))
    with pytest.raises(ConfigError, match=sentence):
        list(runner.stream(several, [Message(SIZE) for _ in range(4)]))
    assert "raised unexpected" not in worker.text()  # which is what Celery says of an activation that broke


def test_a_worker_without_the_package_is_told_before_anything_runs(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n\nsys.modules['lz4'] = None  # as if it were not installed\n"
    )
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    worker = start_worker("nolz4", pool="solo", config=CONFIG, env=environment, fresh=True)
    assert worker.presence["compressions"] == ["zstd"]
    runner = Runner(redis_url, shared_memory=False)
    with pytest.raises(ConfigError, match=r"compression is 'lz4', and .* on .* pip install 'celerypipe\[compre"):
        list(runner.stream(compressing("nolz4", ("Echo", "lz4")), [Message(1)]))
    assert len(list(runner.stream(compressing("nolz4", ("Echo", "zstd")), waves(1)))) == 1
