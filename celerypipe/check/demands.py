"""What a stateful node demands of whoever warps it: its state must outlive a process, and its order must hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from celerypipe.definition.warp import WarpConfiguration


def demands(limits: WarpConfiguration, *, stateful: bool, snapshots: bool) -> Iterator[tuple[str, str]]:
    """Say what of ``limits`` such a node cannot be warped with: the key it concerns, and a sentence.

    The key is empty where it is the node itself.
    """
    if not stateful:
        if limits.pinned:
            yield "pinned", "is for a node that is stateful, and this one is not; leave it out"
        return
    if not limits.pinned and not snapshots:
        yield (
            "",
            "it is stateful and has no snapshot() and restore(state), so its state would die with its process; write "
            'both, or keep it in one process with "pinned": true, or let it run here',
        )
    if limits.batches.size > 1:
        yield "batch", "is not for a stateful node, which gets its messages one at a time; leave it out"
    if (limits.parallel or 1) > 1:
        yield "parallel", f"is {limits.parallel}, but a stateful node runs in one place at a time; leave it out"
    if limits.on_no_worker == "local":
        yield "on_no_worker", "is 'local', but the state of a stateful node cannot move here; write wait or fail"


def cannot_keep(*, stateful: bool) -> str:
    """Say why the results of a node cannot be kept; empty: they can."""
    if not stateful:
        return ""
    return "is for a node whose result depends on its message alone, and this one is stateful; leave it out"


#: What is said of a node that writes into what it is given.
WRITES = "it says writable = True, so all arrays that it is given are copied for it; other nodes get them read-only"


def lacks_slots(pinned: int, slots: Mapping[str, int]) -> str:
    """Say that a worker would have no slot left with so many nodes pinned to it; empty: each has.

    ``slots``: of each live worker of the queue, by its name.
    """
    for worker, count in slots.items():
        if count <= pinned:
            nodes = "a pinned node keeps" if pinned == 1 else f"{pinned} pinned nodes keep"
            return (
                f"{nodes} {pinned} of its worker's slots for the whole run, and {worker} has {count}: nothing else "
                f"would be served there; start it with -P prefork -c {pinned + 1} or more"
            )
    return ""
