"""Single flight: what is asked for at once is computed once, whoever asks, and whoever dies over it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celerypipe.cache.entry import Failure
from celerypipe.cache.question import Question
from celerypipe.definition.cache import CacheDefinition
from celerypipe.message.message import Message
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, connect
from tests.runs.asking import PARENT, Asking, asked, asking
from tests.servers import RedisServer, eventually
from tests.servers.command import RunningCommand, start

FAILED = Failure("failed", "ValueError", "no")
Elsewhere = Callable[[str, int], RunningCommand]


@pytest.fixture
def elsewhere(redis_url: str) -> Iterator[Elsewhere]:
    """Start processes that ask for the same thing."""
    started: list[RunningCommand] = []

    def another(what: str, count: int) -> RunningCommand:
        started.append(start("-m", "tests.runs.elsewhere", redis_url, what, count))
        return started[-1]

    yield another
    for command in started:
        command.kill()


def test_twenty_equal_questions_of_four_processes_are_computed_once(elsewhere: Elsewhere, redis_client: Client) -> None:
    processes = [elsewhere("twenty", 5) for _ in range(4)]
    eventually(lambda: redis_client.get("twenty:asked") == b"20", "twenty questions")
    redis_client.set("twenty:go", 1)
    lines = [line for process in processes for line in process.finish().stdout.splitlines()]
    assert redis_client.get("twenty:computed") == b"1"
    assert lines == ["twenty computed"] * 19


def test_another_takes_over_from_one_that_was_killed(
    elsewhere: Elsewhere, redis_url: str, redis_client: Client
) -> None:
    owner = elsewhere("killed", 1)
    eventually(lambda: redis_client.get("killed:computed") == b"1", "a claim")
    with asking(redis_url) as ask:
        waiting = [ask.start(asked("killed")) for _ in range(3)]
        # It lives for longer than a claim does, and so it is renewed.
        claim = keys.USUAL.cache_claim(asked("killed").fingerprint)
        holder = redis_client.get(claim)
        eventually(lambda: redis_client.pttl(claim) < keys.CACHE_CLAIM_TTL - 500, "some age")
        eventually(lambda: redis_client.pttl(claim) > keys.CACHE_CLAIM_TTL - 500, "a renewal")
        assert redis_client.get(claim) == holder
        assert not any(each.is_there for each in waiting)
        owner.kill()
        waiting[0].claim().keep([Message("computed here")], PARENT, seconds=0.1)
        assert [each.found().outputs(PARENT)[0].payload for each in waiting[1:]] == ["computed here"] * 2


def test_equal_questions_of_one_process_wait_for_one(redis_url: str) -> None:
    with asking(redis_url) as ask:
        first = ask.start(asked("one")).claim()
        others = [ask.start(asked("one")) for _ in range(19)]
        assert ask.compute(asked("another"), 1)  # asked later, answered already
        assert not any(each.is_there for each in others)
        first.keep([Message({"n": 1}), Message(2)], PARENT, seconds=3.0)
        for each in others:
            assert [output.payload for output in each.found().outputs(PARENT)] == [{"n": 1}, 2]
        assert (ask.cache.stats.hits, ask.cache.stats.misses) == (19, 2)


@pytest.mark.parametrize("end", ["drop", "failed", "cannot travel"])
def test_the_next_one_computes_what_nothing_came_of(redis_url: str, redis_client: Client, end: str) -> None:
    what = asked(("next", end))
    with asking(redis_url) as ask, asking(redis_url) as other:
        first = ask.start(what).claim()
        second, third, fourth = ask.start(what), ask.start(what), other.start(what)
        if end == "failed":
            first.failed(FAILED)
        elif end == "cannot travel":
            first.keep([Message(print)], PARENT, seconds=1.0)
        else:
            first.drop()
        first.keep([Message("too late")], PARENT, seconds=1.0)  # a claim ends once
        second.claim().drop()
        third.claim().drop()
        fourth.claim().keep([Message("at last")], PARENT, seconds=1.0)
        eventually(lambda: not redis_client.exists(keys.USUAL.cache_claim(what.fingerprint)), "the end of the claim")
        assert ask.payload(what) == "at last"


def test_what_failed_is_tried_by_all_that_wait_and_not_one_after_another(redis_url: str) -> None:
    with asking(redis_url) as ask:
        first = ask.start(asked("fails for all")).claim()
        others = [ask.start(asked("fails for all")) for _ in range(10)]
        first.failed(FAILED)
        claims = [each.claim() for each in others]
        for number, each in enumerate(claims):
            each.keep([Message(number)], PARENT, seconds=1.0)
        assert ask.payload(asked("fails for all")) == 0, "the first one keeps, the others only compute"


def test_a_failure_that_is_kept_is_the_answer_of_those_who_want_it(redis_url: str) -> None:
    what, policy = asked("failure for some"), CacheDefinition(failures=True)
    with asking(redis_url) as ask:
        first = ask.start(what, policy).claim()
        wants, reruns, others = (
            ask.start(what, policy),
            ask.start(what, policy, rerun_failing=True),
            ask.start(what),
        )
        first.failed(FAILED)
        assert wants.found().failure == FAILED
        assert reruns.found().failure == FAILED  # it ran after it was asked for
        others.claim().drop()


def test_whoever_refreshes_waits_for_nobody(redis_url: str) -> None:
    what = asked("refreshed")
    with asking(redis_url) as ask, asking(redis_url) as other:
        first = ask.start(what).claim()
        waits = other.start(what)
        again, twice = other.start(what, refresh=True).claim(), ask.start(what, refresh=True).claim()
        again.keep([Message("fresh")], PARENT, seconds=1.0)
        assert waits.found().outputs(PARENT)[0].payload == "fresh"
        first.keep([Message("first")], PARENT, seconds=1.0)
        twice.keep([Message("twice")], PARENT, seconds=1.0)
        eventually(lambda: other.payload(what) == "twice", "the last one")


def test_claims_survive_an_emptied_redis(private_redis: RedisServer) -> None:
    what = asked("flushed")
    with asking(private_redis.url) as ask, asking(private_redis.url) as other, connect(private_redis.url) as client:
        claim = ask.start(what).claim()
        client.flushall()
        client.script_flush()
        eventually(lambda: client.exists(keys.USUAL.cache_claim(what.fingerprint)), "the claim, taken again")
        waits = other.start(what)
        claim.keep([Message("kept")], PARENT, seconds=1.0)
        assert waits.found().outputs(PARENT)[0].payload == "kept"
        assert ask.payload(what) == "kept"
        assert not ask.said


def test_claims_end_with_the_cache(redis_url: str, redis_client: Client) -> None:
    with asking(redis_url) as ask, asking(redis_url) as other:
        claims = [ask.start(asked(("closed", number))).claim() for number in range(5)]
        waits = other.start(asked(("closed", 0)))
        ask.cache.close()
        waits.claim().keep([Message("by the other")], PARENT, seconds=1.0)
        claims[0].keep([Message("too late")], PARENT, seconds=1.0)
        eventually(lambda: other.payload(asked(("closed", 0))) == "by the other", "the entry")
        assert redis_client.exists(*(keys.USUAL.cache_claim(asked(("closed", n)).fingerprint) for n in range(5))) == 0


def test_an_answer_that_raises_gives_its_claim_back(redis_url: str) -> None:
    def refuses(answer: object) -> None:
        raise ValueError(answer)

    with asking(redis_url) as ask:
        ask.cache.post(Question(asked("raises"), CacheDefinition(), refuses))
        ask.start(asked("raises")).claim().drop()


@pytest.mark.parametrize("how", ["killed", "frozen", "never there"])
def test_without_redis_all_are_misses_and_nobody_waits(private_redis: RedisServer, how: str) -> None:
    with asking(private_redis.url) as ask:
        if how != "never there":
            assert ask.compute(asked("away"), 1)
            eventually(lambda: ask.cache.stats.kept == 1, "the entry")
            held = ask.start(asked("held")).claim()
        assert private_redis.process is not None
        if how == "frozen":
            private_redis.process.send_signal(signal.SIGSTOP)
        else:
            private_redis.stop()
        first = [ask.start(asked(("away", number))) for number in range(50)]
        for each in first:
            each.claim().keep([Message(1)], PARENT, seconds=1.0)
        many = [ask.start(asked(("many", number))) for number in range(1000)]
        assert all(each.is_there for each in many)  # nobody asks a Redis that is known to be away
        assert len(ask.said) == 1
        if how == "frozen":
            private_redis.process.send_signal(signal.SIGCONT)
        else:
            private_redis.start()
        if how != "never there":
            held.keep([Message(1)], PARENT, seconds=1.0)
        eventually(lambda: _is_remembered(ask), "its return")


def _is_remembered(ask: Asking) -> bool:
    return not ask.compute(asked("is it back?"), 7)


def test_without_an_address_all_are_misses() -> None:
    with asking(None) as ask:
        ask.start(asked(1)).claim().keep([Message(1)], PARENT, seconds=1.0)
        ask.start(asked(1)).claim()
        assert (ask.cache.stats.misses, ask.said) == (2, [])


def test_a_cache_that_is_switched_off_asks_nothing(redis_url: str, tmp_path: Path) -> None:
    with asking(redis_url, second=tmp_path.as_uri(), enabled=False) as ask:
        assert ask.compute(asked("switched off"), 1)
        assert ask.compute(asked("switched off"), 1)
    assert not list(tmp_path.iterdir())


def test_a_redis_that_refuses_us_is_said_once(private_redis: RedisServer) -> None:
    with connect(private_redis.url) as client:
        client.execute_command("ACL", "SETUSER", "weak", "on", "nopass", "~*", "+@all", "-getrange", "-set")
        with asking(private_redis.url.replace("unix://", "unix://weak:x@")) as ask:
            for number in range(5):
                assert ask.compute(asked(number), 1)
            eventually(lambda: ask.cache.stats.misses == 5, "misses")
        assert len([text for text in ask.said if "cannot be read" in text]) == 1


def test_a_claim_that_nobody_of_us_wrote_is_not_waited_for(redis_url: str, redis_client: Client) -> None:
    what = asked("forever claimed")
    redis_client.set(keys.USUAL.cache_claim(what.fingerprint), "a stranger")
    with asking(redis_url) as ask:
        assert ask.compute(what, 1)
