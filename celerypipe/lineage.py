"""How a payload came to be that nobody here has: when its bytes are lost, it is made again from what is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from celerypipe.errors import NodeFailed
from celerypipe.flight import Flight
from celerypipe.message import Message
from celerypipe.warp import Warp


@dataclass(frozen=True, slots=True)
class Lineage:
    """The last ancestor whose bytes the runner has, the nodes that ran on it since, and which output of each."""

    ancestor: Message
    steps: tuple[tuple[Warp, int], ...]


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
