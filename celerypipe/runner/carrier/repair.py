"""Messages whose bytes were lost on their way: sent once more with those that are here, or that are made again."""

from __future__ import annotations

from collections.abc import Sequence

from celerypipe.codec import Elsewhere
from celerypipe.errors import NodeFailed
from celerypipe.message.message import Message
from celerypipe.runner.carrier.cargo import Cargo, Lineage
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.warp import Warp


def send_again(cargo: Cargo, warp: Warp, flight: Flight) -> None:
    """The bytes of a message, or of its result, are lost: send it once more."""
    payload = flight.message.payload
    message = cargo.here(flight.message)
    if message is not None:
        warp.send_again(flight, message)
    elif isinstance(payload, Elsewhere):
        remake(warp, flight, payload.lineage)


def remake(warp: Warp, flight: Flight, lineage: Lineage) -> None:
    """Run the nodes of the lineage once more, beside all other messages, and send the flight with what comes out."""

    def go_on(message: Message, done: int) -> None:
        if flight.done:
            return
        if done == len(lineage.steps):
            old = flight.message
            again = old.with_changes(payload=message.payload, id=old.id, created_at=old.created_at)
            warp.send_again(flight, again)
            return
        through, number = lineage.steps[done]

        def arrived(outputs: Sequence[Message], error: BaseException | None) -> None:
            if error is None and number < len(outputs):
                go_on(outputs[number], done + 1)
                return
            text = f"{warp.name}: its input was lost, and {through.name} did not make it again"
            failure = NodeFailed(text, node=warp.name, message_id=flight.message.id)
            failure.__cause__ = error
            warp.failed(flight, failure)

        through.run_errand(message, arrived)

    if not flight.remaking:
        flight.remaking = True
        go_on(lineage.ancestor, 0)
