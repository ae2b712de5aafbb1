"""The way to Redis breaks, crawls or goes silent: every message once, in order, workers resume."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from queue import SimpleQueue

import pytest

from celerypipe import Message, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.redis.connection import connect
from tests.nodes.stateful import CONFIG, sums
from tests.runs.counted import AGAIN, Counted, lasting
from tests.runs.metrics import outcomes
from tests.runs.pipelines import summing
from tests.runs.reading import Reading
from tests.servers import POOLS, StartWorker
from tests.servers.extent import LONG
from tests.servers.port import free_port
from tests.servers.proxy import Proxy, close, forget, reset
from tests.servers.redis import TunedRedis


def cut(proxy: Proxy) -> None:
    proxy.cut(refusing=False)


def cut_for_a_while(proxy: Proxy) -> None:
    proxy.cut(refusing=True)
    lasting()
    proxy.mend()


def throttle(proxy: Proxy) -> None:
    proxy.rate = 4000
    lasting()
    proxy.mend()


def swallow(proxy: Proxy) -> None:
    """As a proxy that hangs: it takes everything, and passes nothing on."""
    proxy.swallow()


def forgotten(proxy: Proxy) -> None:
    """As a firewall that forgot all connections: nothing comes, and nobody is told."""
    proxy.end(forget)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("harm", [throttle, *([cut, cut_for_a_while, swallow, forgotten] if LONG else [])])
@pytest.mark.parametrize(("pool", "slots"), POOLS if LONG else [("solo", 1)])
def test_every_message_arrives_once_over_a_bad_line(
    start_worker: StartWorker, durable_redis: TunedRedis, harm: Callable[[Proxy], None], pool: str, slots: int
) -> None:
    with Proxy(durable_redis.folder / "redis.sock") as proxy:
        worker = start_worker("line", url=proxy.url, pool=pool, concurrency=slots, config=CONFIG)
        counted = Counted(proxy.url, "line", worker)
        harm(proxy)
        counted.assert_all_once_in_order()
        assert outcomes(durable_redis.url, "line") == {"done": counted.sent + AGAIN}
        worker.stop()


@pytest.mark.skipif(not LONG, reason="takes 10 s; test_connection.py looks at the pieces")
def test_a_large_payload_gets_over_a_slow_line(durable_redis: TunedRedis) -> None:
    """The timeout of a socket is for all of one write: what takes longer than that would be tried again for ever."""
    content = bytes(64 * 1024 * 1024)
    with Proxy(durable_redis.folder / "redis.sock") as proxy, connect(proxy.url, timeout=4.0) as client:
        assert client.call("PING") == b"PONG"
        proxy.rate = 8_000_000
        assert client.call("SET", "large", [content]) == b"OK"
    with durable_redis.client() as client:
        assert client.strlen("large") == len(content)


#: Seconds that a node takes, and for which a line may be idle; a runner's own is, for a second at a time.
SLOW, IDLE = 3.0, 1.8


def many_ways(queue: str, diary: Path, slots: int) -> Pipeline:
    """One message to nodes that take long: a plain one, a batch, one with a state, and where it may be one pinned."""
    marks = {
        "plain": ("remote.Nap", {"diary": str(diary / "plain")}, {}),
        "batch": ("remote.Together", {"diary": str(diary / "batch")}, {"batch": {"size": 2, "wait": 0.0}}),
        "state": ("stateful.RunningSum", {"delay": SLOW}, {}),
        "pinned": ("stateful.Forgetful", {"delay": SLOW}, {"pinned": True}),
    }
    if slots == 1:
        del marks["pinned"]
    nodes = [
        NodeDefinition(
            name=name,
            type="proc",
            mark=f"tests.nodes.{mark}",
            configuration=configuration,
            warped=True,
            warp_configuration={"queue": queue, **limits},
        )
        for name, (mark, configuration, limits) in marks.items()
    ]
    start = NodeDefinition(name="start", type="proc", mark="passthrough_identity")
    return Pipeline(name="ways", nodes=[start, *nodes], links=[("start", name) for name in marks])


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("ending", "pool", "slots"),
    [
        (ending, pool, slots)
        for ending in ("timeout", "close", "reset")
        for pool, slots in (("prefork", 4), ("threads", 4), ("solo", 1))
        if LONG or (ending, pool) == ("timeout", "prefork")
    ],
)
def test_what_takes_longer_than_a_line_may_be_idle_is_run_once(
    start_worker: StartWorker, tmp_path: Path, ending: str, pool: str, slots: int
) -> None:
    """Redis or a proxy closes the line of an activation while its node works; the result arrives all the same."""
    port = free_port()
    server = TunedRedis(settings={"port": str(port), **({"timeout": "1"} if ending == "timeout" else {})}).start()
    how = {"close": close, "reset": reset}.get(ending)
    proxy = nullcontext() if how is None else Proxy(server.folder / "redis.sock", idle=IDLE, ending=how)
    try:
        with proxy as between:
            url = f"redis://127.0.0.1:{port}/0" if between is None else between.url
            worker = start_worker("idle", url=url, pool=pool, concurrency=slots, config=CONFIG)
            said: list[str] = []
            runner = Runner(url, on_event=said.append)
            out = [message.payload for message in runner.stream(many_ways("idle", tmp_path, slots), [Message(SLOW)])]
            assert sorted(out) == [SLOW] * min(slots + 1, 3) + [2 * SLOW], worker.text()
            assert [len(path.read_text().splitlines()) for path in tmp_path.iterdir()] == [1, 1]
            assert not [text for text in said if "Redis" in text]
            assert between is None or between.ended
            worker.stop()
    finally:
        server.remove()


@pytest.mark.timeout(90)
@pytest.mark.parametrize(("node", "limits"), [("Forgetful", {"pinned": True}), *([("RunningSum", {})] if LONG else [])])
def test_a_state_outlives_lines_that_break_while_they_are_read(
    start_worker: StartWorker, durable_redis: TunedRedis, node: str, limits: dict[str, bool]
) -> None:
    """Nothing died: a pinned node, which no other process can go on for, goes on too."""
    given: SimpleQueue[Message | None] = SimpleQueue()
    with Proxy(durable_redis.folder / "redis.sock") as proxy:
        worker = start_worker("broken", url=proxy.url, pool="prefork", concurrency=2, config=CONFIG)
        stream = Runner(proxy.url).stream(summing("broken", node, limits=limits), iter(given.get, None))
        reading = Reading(stream)
        for number in range(8):
            given.put(Message(number))
            reading.wait_for(number + 1)
            proxy.end(reset)
        given.put(None)
        assert reading.payloads() == sums(range(8)), worker.text()
        worker.stop()
