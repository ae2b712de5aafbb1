"""What workers log and print, wherever it goes: to the runs that they work for, and to a place of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from celerypipe.mailbox.logs import LogReader, following, trimmed
from celerypipe.mailbox.status import read_runs
from celerypipe.message.logs import LogLine
from celerypipe.redis.address import Address
from celerypipe.redis.connection import connect, explained
from celerypipe.redis.signing import Keyring

#: Seconds between two looks.
LOOK = 0.2
#: Seconds for which a run that is over is still read: its last lines may come late.
LAST = 30.0


def lines_of(address: Address, places: Sequence[str], keyring: Keyring | None, *, follow: bool) -> Iterator[LogLine]:
    """Yield the lines of these workers; with ``follow`` without end, else those of now, by time."""
    with explained(address), connect(address, name="celerypipe-logs") as client:
        readers: dict[str, LogReader] = {}
        last: dict[str, bytes] = {}
        seen: dict[str, float] = {}
        while True:
            now = time.monotonic()
            runs, _ = read_runs(client, client.now())
            for of in [*places, *(run.id for run in runs)]:
                seen[of] = now
                if of not in readers:
                    readers[of], last[of] = LogReader(of, keyring, whole=not trimmed(client, of)), b"0-0"
            for of in [of for of, at in seen.items() if now - at > LAST]:  # else each look takes longer than the last
                del readers[of], last[of], seen[of]
            lines: list[LogLine] = []
            for of, reader in readers.items():
                while items := following(client, of, last[of], None):
                    last[of] = items[-1][0]
                    lines += [line for item in items for line in reader.read(item).lines if line.worker in places]
            yield from sorted(lines, key=lambda line: line.time)
            if not follow:
                return
            time.sleep(LOOK)
