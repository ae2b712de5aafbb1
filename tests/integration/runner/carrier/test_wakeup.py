"""A message for a node that nobody serves: one Celery task wakes a worker, early when nobody can be there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from celerypipe import Message, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.redis import keys
from celerypipe.redis.connection import connect
from celerypipe.redis.url import read_address
from celerypipe.runner.carrier import bells
from celerypipe.runner.carrier.bells import Bells
from celerypipe.runner.carrier.roster import Roster
from celerypipe.runner.carrier.whereabouts import Whereabouts
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.downstream import Downstream
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.warp import Warp
from tests.nodes.remote import CONFIG
from tests.servers import RedisServer, RunningWorker, StartWorker, eventually

LINGER = 0.05
#: Longer than an activation of such a node may stay.
PAUSE = 0.5


def node(name: str = "there", queue: str = "woken") -> NodeDefinition:
    return NodeDefinition(
        name=name,
        type="proc",
        mark="tests.nodes.remote.Echo",
        warped=True,
        warp_configuration={"queue": queue, "linger": LINGER},
    )


def run_with_pauses(
    url: str, worker: RunningWorker, count: int, before: Callable[[int], None] = lambda number: None
) -> None:
    """Send one message after the other, each when nobody is there any more, and after what ``before`` does."""
    pipeline = Pipeline(name="test", nodes=[node()], links=[])

    def over() -> bool:
        text = worker.text()
        return text.count(" received\n") == text.count(" succeeded in ")

    def messages() -> Iterator[Message]:
        for number in range(count):
            eventually(lambda number=number: answered == number and over(), "the end of each activation")
            time.sleep(PAUSE)
            before(number)
            yield Message(number)

    answered = 0
    for message in Runner(url).stream(pipeline, messages()):
        assert message.payload == answered
        answered += 1
    assert answered == count


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy a bell may wait for long, and would be rung once more."""
    monkeypatch.setattr(keys, "RUNG_TTL", 60_000)


def test_each_message_after_a_pause_costs_one_task(private_redis: RedisServer, start_worker: StartWorker) -> None:
    worker = start_worker("woken", url=private_redis.url, pool="prefork", concurrency=1, config=CONFIG)
    run_with_pauses(private_redis.url, worker, 6)
    assert worker.text().count(" received\n") == 6
    assert "at work on this already" not in worker.text()


def test_a_bell_that_was_not_needed_does_no_harm_and_is_the_last_of_its_kind(
    private_redis: RedisServer, start_worker: StartWorker
) -> None:
    worker = start_worker("woken", url=private_redis.url, pool="prefork", concurrency=1, config=CONFIG)
    ends: list[threading.Thread] = []

    def hold(number: int) -> None:
        """Somebody seems to serve the node, whom the runner did not hear of: at first until it was early."""
        if number in (1, 3):
            with connect(private_redis.url) as client:
                (name,) = client.scan_iter("celerypipe:node:*:there")
                bell = f"{keys.USUAL.bell(name.decode().split(':')[2], 'there')}0"
                client.set(bell, "elsewhere.1.token.0")
            ends.append(threading.Thread(target=let_go, args=(bell,)))
            ends[-1].start()

    def let_go(bell: str) -> None:
        if "at work on this already" in worker.text():
            time.sleep(PAUSE)
        else:  # a busy machine may make the worker seem to be away: then the runner is not early, and all waits
            began = time.monotonic()
            eventually(
                lambda: "at work on this already" in worker.text() or time.monotonic() - began > 10 * PAUSE,
                "a bell that was not needed, or none",
            )
        with connect(private_redis.url) as client:
            client.delete(bell)

    run_with_pauses(private_redis.url, worker, 5, hold)
    for end in ends:
        end.join()
    text = worker.text()
    not_needed = text.count("at work on this already")
    assert not_needed <= 1  # after it the runner was not early, but asked Redis first; on a busy machine it never is
    assert text.count(" received\n") == 5 + not_needed


def test_a_bell_is_early_only_when_nobody_can_be_there(private_redis: RedisServer) -> None:
    course = Course("run", folder=None, say=print)
    roster = Roster(course)
    address = read_address(private_redis.url)
    ours = Bells(course, roster, Whereabouts(address, roster))
    warps = [
        Warp(course, node(name, queue), ours, Downstream())  # type: ignore[arg-type]  # they are not asked to carry anything
        for name, queue in (("there", "woken"), ("beside", "woken"), ("elsewhere", "other"))
    ]
    there, beside, elsewhere = warps
    with connect(private_redis.url) as client:
        roster.look(client, warps)
    out = Flight(1, Message(1))
    there.flights[1] = elsewhere.flights[1] = out
    elsewhere.answered_at = time.monotonic()
    assert ours.may_be_early(there, 1)
    assert not ours.may_be_early(there, 0)  # an earlier message is out, so it was rung for
    beside.flights[1] = out
    assert not ours.may_be_early(there, 1)  # whoever is rung for its neighbour may serve it too
    del beside.flights[1]
    beside.answered_at = time.monotonic()
    assert not ours.may_be_early(there, 1)  # whoever served its neighbour a moment ago lingers
    beside.answered_at -= LINGER + bells.SLACK + 0.01
    assert ours.may_be_early(there, 1)
    ours.was_early(there, [0])
    assert ours.may_be_early(there, 1)
    ((push, queue, _),) = ours.sending(beside, [0], "token")
    assert (push, queue) == ("LPUSH", "woken")
    assert not ours.may_be_early(there, 1)  # whoever was rung for a moment ago is on the way
    ours._rung_at.clear()
    assert ours.may_be_early(there, 1)
    ours.was_early(there, [])
    assert not ours.may_be_early(there, 1)
