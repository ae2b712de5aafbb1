"""The links of a pipeline, as what gets the results of its warped nodes."""

from __future__ import annotations

from collections.abc import Sequence

from celerypipe import codec
from celerypipe.message.message import Message
from celerypipe.runner.warp.flight import Done, Flight
from celerypipe.runner.warp.warp import Warp


class Downstream:
    """Passes results on down the links of their node, and gives messages up as the node's ``on_error`` says."""

    sealed = False
    may_wait = True

    def deliver(self, warp: Warp, ready: Sequence[Done], *, wait: bool) -> int:
        count = 0
        for done in ready:
            if not wait and not warp.roomy(len(done.outputs)):
                break
            if done.onward:
                _pass_through(warp, done, wait=wait)
            else:
                warp.pass_on(done.outputs, done.message, crowd=not wait)
            warp.course.left(done.message)
            count += 1
        return count

    def delivered(self, warp: Warp) -> None:
        if warp.onward is not None:
            warp.onward.hand_over()

    def give_up(self, warp: Warp, message: Message, error: BaseException, attempt: int, note: str = "") -> None:
        """Do as ``on_error`` says; a payload that is elsewhere is fetched for a dead letter, or what it was made of."""
        payload = message.payload
        if warp.node.on_error != "dead_letter" or not isinstance(payload, codec.Elsewhere):
            warp.failures.give_up(message, error, attempt, note=note)
            return

        def fetch_and_bury() -> None:
            here = warp.carrier.here(message)
            if here is not None:
                warp.failures.bury(here, error, attempt, note=note)
            else:
                first = payload.lineage.steps[0][0].name
                lost = f"its payload was lost with Redis; this is the message that it was made from, for {first}"
                warp.failures.bury(payload.lineage.ancestor, error, attempt, note=lost, starts_at=first)
            warp.course.left(message)

        warp.course.hold(message)
        warp.course.later(fetch_and_bury)  # who gives it up may be watching time

    def mends(self, warp: Warp, flight: Flight, message: Message) -> bool:
        return False


def _pass_through(warp: Warp, done: Done, *, wait: bool) -> None:
    """Pass on what the next node had already, each with what it made of it."""
    for output, after in zip(done.outputs, done.onward, strict=True):
        if after is None or warp.onward is None:
            warp.pass_on((output,), done.message, crowd=not wait)
            continue
        warp.tally.sent += 1
        warp.course.sent(after.message, done.message)
        warp.onward.pass_through(warp.name, after, crowd=not wait)
        if wait:  # there may be more of them than it has room for
            warp.onward.hand_over()


def only_next(warp: Warp) -> Warp | None:
    """The node on the same queue, with no more slots, that gets all that comes out of this one and nothing else."""
    if len(warp.outlets) != 1 or warp.is_slow or warp.outlets[0].link.full != "block":
        return None
    station = warp.outlets[0].station
    if not isinstance(station, Warp) or station.queue != warp.queue or len(station.open_links) != 1:
        return None
    if warp.seen_here or station.seen_here or station.places is not None:
        return None
    mine, its = warp.limits, station.limits
    if mine.parallel is not None and (its.parallel is None or its.parallel > mine.parallel):
        return None  # it would be at work only where this one is
    return station if mine.batches.size == its.batches.size == 1 else None
