"""The circuit breaker of a queue: when it opens, what it lets through, when it closes."""

from __future__ import annotations

from celerypipe.errors import WorkerLost
from celerypipe.runner.warp.circuit import REST, REST_MOST, ROW, Circuit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Circuit, Clock, list[str]]:
    said: list[str] = []
    clock = Clock()
    circuit = Circuit("gpu", said.append, clock)
    circuit.see({"one"})
    return circuit, clock, said


def fail(circuit: Circuit, times: int = ROW) -> None:
    for _ in range(times):
        circuit.failed("1 s exceeded")


def test_failures_in_a_row_open_it_and_an_answer_between_them_does_not() -> None:
    circuit, _, said = make()
    for _ in range(3):
        fail(circuit, ROW - 1)
        circuit.answered()
    assert circuit.admits()
    assert said == []
    fail(circuit)
    assert not circuit.admits()
    fail(circuit)  # those that were on their way
    (line,) = said
    assert "queue 'gpu': 5 messages in a row failed without an answer, the last one: 1 s exceeded" in line
    assert circuit.report().opened == 1


def test_one_probe_goes_in_after_a_while_and_its_answer_closes_it() -> None:
    circuit, clock, said = make()
    fail(circuit)
    clock.now = REST - 0.1
    assert not circuit.admits()
    clock.now = REST
    assert not circuit.admits(probe=False)
    assert [circuit.admits() for _ in range(3)] == [True, False, False]
    assert circuit.state == "half-open"
    circuit.answered()
    assert circuit.admits()
    assert said[1:] == ["queue 'gpu': it answers again; 4 messages failed meanwhile"]
    assert (circuit.report().circuit, circuit.report().refused) == ("closed", 4)


def test_a_probe_that_fails_is_followed_by_one_after_twice_the_time() -> None:
    circuit, clock, said = make()
    fail(circuit)
    waited = []
    for _ in range(5):
        start = clock.now
        while not circuit.admits():
            clock.now += 1
        waited.append(clock.now - start)
        circuit.failed("again")
    assert waited == [REST, 2 * REST, 4 * REST, REST_MOST, REST_MOST]
    assert len(said) == 1


def test_a_probe_that_gets_lost_is_followed_by_another() -> None:
    circuit, clock, _ = make()
    fail(circuit)
    clock.now = REST
    assert circuit.admits()
    clock.now = 2 * REST
    assert circuit.admits()


def test_a_further_worker_may_be_tried_at_once() -> None:
    circuit, _, _ = make()
    fail(circuit)
    circuit.see({"one"})
    assert not circuit.admits()
    circuit.see({"one", "two"})
    assert [circuit.admits(), circuit.admits()] == [True, False]


def test_the_first_worker_of_a_queue_that_had_none_closes_it() -> None:
    circuit, _, said = make()
    circuit.see(())
    fail(circuit)
    circuit.see({"two"})
    assert circuit.admits()
    assert "a worker serves it now" in said[1]


def test_it_says_whether_processes_died_of_the_messages() -> None:
    circuit, _, _ = make()
    fail(circuit)
    assert not circuit.deadly
    circuit.judge(WorkerLost("gpu: its process died", node="gpu"), unserved=False)
    assert circuit.deadly
    circuit.answered()
    assert not circuit.deadly
