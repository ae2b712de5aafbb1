"""The talk between the parent and a peer's script: one JSON line asks, one JSON line answers.

The script leaves when its standard input ends, so it never outlives the parent.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from benchmarks.peers.workloads import WORKLOADS, Peer

#: Seconds for one workload; the parent waits somewhat longer.
LIMIT = 60


class TooLongError(Exception):
    """The workload was not done in time."""


def serve(start: Callable[[], Sequence[Peer]]) -> None:
    """Start the peers, tell the parent their names, then measure what it asks for until it hangs up."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a peer prints is no answer
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGALRM, _too_long)
    peers: Sequence[Peer] = ()
    try:
        peers = start()
        print(json.dumps({"peers": [_offer(peer) for peer in peers]}), file=answers, flush=True)
        for line in sys.stdin:
            question = json.loads(line)
            print(json.dumps(_answer(peers[question["peer"]], question["workload"])), file=answers, flush=True)
    finally:
        for peer in peers:
            peer.close()


def _offer(peer: Peer) -> dict[str, object]:
    numbers = [number for number, workload in enumerate(WORKLOADS) if peer.offers(workload)]
    return {"name": peer.name, "workloads": numbers}


def _answer(peer: Peer, index: int) -> dict[str, object]:
    workload = WORKLOADS[index]
    said: dict[str, object] = {
        "peer": peer.name,
        "workload": workload.name,
        "figure": workload.figure,
        "unit": workload.unit,
    }
    reason = peer.lacks(workload)
    if reason:
        return said | {"reason": reason}
    signal.alarm(LIMIT)
    try:
        return said | {"value": peer.measure(workload), "note": peer.note(workload)}
    except TooLongError:
        return said | {"reason": f"not done after {LIMIT} s"}
    except Exception as fault:  # noqa: BLE001  # whatever a peer throws is a line in the results
        return said | {"reason": f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}"[:300]}
    finally:
        signal.alarm(0)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLongError


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(1)


def main() -> None:
    """``python -m benchmarks.peers.script NAME``."""
    serve(importlib.import_module(f"benchmarks.peers.{sys.argv[1]}_peer").start)


if __name__ == "__main__":
    main()
