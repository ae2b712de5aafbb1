"""A hand on a run that goes on: what is ordered reaches all instances of a node, here and on workers."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celerypipe import ConfigError, Message, Obeyed, Pipeline, RedisUnavailable, Runner
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.mailbox.orders import ALL, Order, ask, obeyed
from celerypipe.redis.connection import Client, connect
from celerypipe.settings import Settings
from tests.nodes.live import CONFIG
from tests.runs.reading import Reading
from tests.runs.traces import run_of
from tests.servers import FEW_POOLS, RedisServer, StartWorker, eventually

MARK = "tests.nodes.live.Gain"


class Live:
    """A run of one node that is fed message by message."""

    def __init__(self, runner: Runner, node: NodeDefinition) -> None:
        self.runner = runner
        self._inputs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.reading = Reading(runner.stream(Pipeline(name="live", nodes=[node], links=[]), self._feed()))
        eventually(lambda: runner._current is not None, "the run")

    def _feed(self) -> Iterator[Message]:
        while (payload := self._inputs.get()) is not None:
            yield Message(payload)

    def send(self, *payloads: Any) -> None:
        for payload in payloads:
            self._inputs.put(payload)

    def __call__(self, *payloads: Any) -> list[Any]:
        """Send these, and return what comes of them."""
        before = len(self.reading.out)
        self.send(*payloads)
        self.reading.wait_for(before + len(payloads))
        return [message.payload for message in self.reading.out[before:]]

    def becomes(self, payload: Any, result: Any) -> None:
        """Send this until the result is that: on a busy machine an instance may hear late."""
        eventually(lambda: self(payload) == [result], f"{result} of {payload}")

    def end(self) -> list[Any]:
        self.send(None)
        return self.reading.payloads()


def node(
    where: str, queue: str = "", mark: str = MARK, *, cached: bool = False, **configuration: Any
) -> NodeDefinition:
    there = {"warped": True, "warp_configuration": {"queue": queue}} if where == "there" else {}
    there |= {"cache": True} if cached else {}
    return NodeDefinition(name="gain", type="proc", mark=mark, configuration=configuration, **there)


@pytest.mark.parametrize("where", ["here", "loopback", *(f"{pool} {slots}" for pool, slots in FEW_POOLS)])
def test_a_node_is_changed_suspended_and_made_anew_while_it_runs(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path, where: str
) -> None:
    diary = tmp_path / "diary"
    if where in ("here", "loopback"):
        runner = Runner(local=True)
        made = node("there" if where == "loopback" else "here", "nobody", diary=str(diary))
    else:
        pool, slots = where.split()
        shared_worker(f"live{pool}", pool=pool, concurrency=int(slots), config=CONFIG)
        runner = Runner(redis_url)
        made = node("there", f"live{pool}", diary=str(diary))
    live = Live(runner, made)
    assert live(1, 2) == [1, 2]
    assert not any(each.error for each in runner.set("gain", "factor", 10))
    live.becomes(2, 20)
    runner.suspend("gain")
    live.becomes(3, 3)
    runner.unsuspend("gain")
    live.becomes(3, 30)
    warmed = len(diary.read_text().splitlines())
    runner.restart("gain")
    eventually(lambda: live(4) == [40] and len(diary.read_text().splitlines()) > warmed, "what was set stays set")
    runner.set("gain", "factor", 2)
    runner.set("gain", "factor", 3)
    live.becomes(1, 3)
    live.end()
    # The next run has the node as it is written.
    again = Live(Runner(local=True) if where in ("here", "loopback") else Runner(redis_url), made)
    assert again(5) == [5]
    again.end()


def answer(runner: Runner, name: str, value: Any) -> Obeyed:
    """Have it set until an instance answers in time, which on a busy machine it may not."""

    def given() -> Obeyed | None:
        return next((each for each in runner.set("gain", name, value) if not each.late), None)

    found = eventually(given, "an answer")
    assert found is not None
    return found


@pytest.mark.parametrize("where", ["here", "there"])
def test_what_a_node_refuses_is_said_and_nothing_changes(
    shared_worker: StartWorker, redis_url: str, where: str
) -> None:
    shared_worker("livesolo", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url)
    live = Live(runner, node(where, "livesolo", delay=0.05))
    live.send(*[1] * 2000)  # it is at work until the end
    live.reading.wait_for(1)
    for name, value, why in (("volume", 1, "no property 'volume'"), ("factor", "loud", "factor is a number")):
        found = answer(runner, name, value)
        assert why in found.error
        assert ", process " in found.where
    assert answer(runner, "factor", 2).error == ""
    for wrong, text in (
        (lambda: runner.set("grain", "factor", 1), r"no node 'grain' in this run.*did you mean 'gain'"),
        (lambda: runner.set("gain", "", 1), "name the property"),
        (lambda: runner.set("gain", "factor", object()), "cannot be sent"),
    ):
        with pytest.raises(ConfigError, match=text):
            wrong()
    eventually(lambda: live.reading.out[-1].payload == 2, "what was set")
    runner.cancel()
    live.reading.join(20)
    assert {message.payload for message in live.reading.out} == {1, 2}
    with pytest.raises(ConfigError, match="no run is active"):
        runner.set("gain", "factor", 1)


def test_a_node_without_the_method_says_so(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("livesolo", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url)
    live = Live(runner, node("here", mark="tests.nodes.live.Fixed"))
    (found,) = runner.set("gain", "factor", 1)
    assert "has no set_on_config" in found.error
    live.end()


def test_one_that_hears_nothing_is_named_and_does_it_afterwards(start_worker: StartWorker, redis_url: str) -> None:
    start_worker("livedeaf", pool="prefork", concurrency=2, config=CONFIG)
    runner = Runner(redis_url)
    made = NodeDefinition(
        name="gain",
        mark=MARK,
        type="proc",
        configuration={"deaf": 3.0},
        warped=True,
        warp_configuration={"queue": "livedeaf", "parallel": 1},
    )
    live = Live(runner, made)
    live.send(1, 1)
    eventually(lambda: _is_busy(redis_url), "a message in C code")
    (found,) = runner.set("gain", "factor", 7)
    assert found.late
    assert not found.error
    assert live.end() == [1, 7]


def _is_busy(url: str) -> bool:
    with connect(url) as client:
        return any(
            client.xpending(key, "celerypipe")["pending"] for key in client.scan_iter("celerypipe:mailbox:*:gain")
        )


def test_all_workers_of_a_queue_do_it_and_those_that_come_later(start_worker: StartWorker, redis_url: str) -> None:
    workers = [start_worker("livemany", pool="solo", concurrency=1, config=CONFIG) for _ in range(2)]
    runner = Runner(redis_url)
    live = Live(runner, node("there", "livemany", delay=0.1))
    live.send(*[1] * 2000)
    eventually(lambda: len({message.meta["pid"] for message in live.reading.out}) == 2, "both at work")
    found = runner.set("gain", "factor", 5)
    assert {each.where.rpartition(" ")[2] for each in found} == {str(worker.process.pid) for worker in workers}
    assert not any(each.error for each in found)
    third = start_worker("livemany", pool="solo", concurrency=1, config=CONFIG)

    def of_the_third() -> set[float]:
        return {message.payload for message in live.reading.out if message.meta["pid"] == third.process.pid}

    eventually(of_the_third, "what comes of a worker that came later")
    runner.cancel()
    live.reading.join(20)
    assert of_the_third() == {5}


def test_a_state_goes_on_through_changes(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("livesolo", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url)
    live = Live(runner, node("there", "livesolo", mark="tests.nodes.live.Total"))
    assert live(1, 2) == [1, 3]
    runner.set("gain", "factor", 0)
    live.becomes(1, live.reading.out[-1].payload)
    before = live.reading.out[-1].payload
    runner.restart("gain")
    assert live(1) == [before], "it has its state, and what was set"
    runner.suspend("gain")
    live.becomes(77, 77)
    runner.unsuspend("gain")
    live.becomes(77, before)
    live.end()


def test_orders_outlive_a_redis_that_forgot(start_worker: StartWorker, private_redis: RedisServer) -> None:
    start_worker("liveflush", url=private_redis.url, pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(private_redis.url)
    live = Live(runner, node("there", "liveflush"))
    assert live(1) == [1]
    runner.set("gain", "factor", 4)
    live.becomes(1, 4)
    private_redis.flush()
    assert live(1, 1) == [4, 4]
    live.end()


def test_what_was_changed_has_another_identity_in_the_cache(
    start_worker: StartWorker, private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_worker("livecache", url=private_redis.url, pool="solo", concurrency=1, config=CONFIG)
    for where in ("here", "there"):
        made = node(where, "livecache", cached=True)
        for factor in (1, 2):  # the second run finds nothing of what was changed, and all of what was not
            runner = Runner(private_redis.url)
            live = Live(runner, made)
            assert live(1, 2) == [1, 2]
            runner.set("gain", "factor", 10 * factor)
            live.becomes(1, 10 * factor)
            assert live(5, 5) == [50 * factor, 50 * factor]
            live.end()
            assert runner.report is not None
            there = runner.report["gain"]
            assert there.hits >= (2 if factor == 2 else 0), there
        last = Live(Runner(private_redis.url), made)
        assert last(5, 1) == [5, 1], "what was changed is not taken for what is written"
        last.end()


@pytest.mark.parametrize("where", ["here", "there"])
def test_the_cache_rests_for_good_where_an_instance_was_late(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Path, where: str
) -> None:
    """Nobody knows then what computes: also once another change was answered by all."""
    start_worker("livelate", url=private_redis.url, pool="solo", concurrency=1, config=CONFIG)
    gate = tmp_path / "gate"
    made = node(where, "livelate", "tests.nodes.live.Mix", cached=True, gate=str(gate))
    live = Live(Runner(private_redis.url), made)
    live.send(1)
    eventually((tmp_path / "gate.at-work").exists, "a message at work")
    (late,) = live.runner.set("gain", "factor", 10)
    assert late.late
    gate.touch()
    live.becomes(1, 10)
    assert not any(each.late or each.error for each in live.runner.set("gain", "offset", 5))
    live.becomes(2, 25)
    assert live(3) == [35]
    live.end()
    other = Live(Runner(private_redis.url), made)
    other.runner.set("gain", "offset", 5)  # it may be about to begin
    other.becomes(1, 6)
    assert other(2, 3) == [7, 8], "what was computed with another factor is not its own"
    other.end()


@pytest.mark.parametrize("where", ["here", "there"])
def test_what_ends_an_interpreter_ends_no_run(shared_worker: StartWorker, redis_url: str, where: str) -> None:
    shared_worker("livesolo", pool="solo", concurrency=1, config=CONFIG)
    live = Live(Runner(redis_url), node(where, "livesolo", "tests.nodes.live.Mix"))
    assert live(1) == [1]
    found = live.runner.set("gain", "end", 1)
    assert all("SystemExit" in each.error for each in found)
    assert live(2) == [2]
    live.end()


def test_what_was_ordered_once_is_not_done_again_because_somebody_copies_it(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy is signed as well as what it was copied from."""
    monkeypatch.setenv("CELERYPIPE_KEYS", "0123456789abcdef")
    start_worker("livesigned", pool="solo", concurrency=1, config=CONFIG)
    said: list[str] = []
    live = Live(Runner(redis_url, on_event=said.append), node("there", "livesigned"))
    assert live(1) == [1]
    keyring = Settings.from_environment().keyring
    with connect(redis_url) as client:
        run = run_of(live.runner)
        asked = Order("set", "gain", "factor", 2)
        ask(client, run, asked, keyring)
        eventually(lambda: obeyed(client, asked.id), "an answer")
        live.runner.set("gain", "factor", 3)
        live.becomes(1, 3)
        ((_, entry),) = client.xrange(client.names.asked(run))
        copied: Any = entry
        client.xadd(client.names.asked(run), copied)
        client.rpush(client.names.orders(run), *client.lrange(client.names.orders(run), 0, 0))
        eventually(
            lambda: live(1) == [3] and any("order" in text and "refused" in text for text in said), "what is said"
        )
        assert client.llen(client.names.orders(run)) == 3
    assert [live(1) for _ in range(3)] == [[3]] * 3
    live.end()


@pytest.mark.parametrize("kind", ["asked", "log", "orders"])
def test_what_somebody_puts_in_the_place_of_a_key_holds_no_run_up(
    shared_worker: StartWorker, redis_url: str, kind: str
) -> None:
    shared_worker("livesolo", pool="solo", concurrency=1, config=CONFIG)
    live = Live(Runner(redis_url), node("there", "livesolo"))
    assert live(1) == [1]
    with connect(redis_url) as client:
        place = getattr(client.names, kind)(run_of(live.runner))
        client.delete(place)
        client.set(place, "no stream")
    assert live(2) == [2]
    live.runner.set("gain", "factor", 3)
    live.becomes(1, 3)
    live.end()


def test_an_answer_that_no_run_wrote_is_none(redis_client: Client) -> None:
    place = redis_client.names.answers("strange")
    for text in (b"5", b"nonsense", b'{"error": "", "found": 5}'):
        redis_client.hset(place, ALL, text)
        redis_client.expire(place, 60)
        assert obeyed(redis_client, "strange") is None


def test_a_redis_that_is_away_is_said_and_the_change_comes_later(
    start_worker: StartWorker, private_redis: RedisServer
) -> None:
    start_worker("liveaway", url=private_redis.url, pool="solo", concurrency=1, config=CONFIG)
    live = Live(Runner(private_redis.url), node("there", "liveaway"))
    assert live(1) == [1]
    private_redis.stop()
    with pytest.raises(RedisUnavailable, match="Redis is not there"):
        live.runner.set("gain", "factor", 7)
    private_redis.start()
    live.becomes(1, 7)
    live.end()
