"""How far a run is: how many messages of its sources are through all nodes, and how many there will be."""

from __future__ import annotations

from collections.abc import Iterable

from celerypipe.runner.stations.source import SourceStation
from celerypipe.runner.stations.station import Station


def advance(stations: Iterable[Station]) -> tuple[int, int | None]:
    """Return both; None where a source does not know how many messages it has.

    Exact where each message becomes at most one. Elsewhere by the share of what came to each node that is through it,
    along the path that is furthest behind: a message of a source is no longer one message then.
    """
    shares: dict[Station, float] = {}
    sources = [station for station in stations if isinstance(station, SourceStation)]
    through = 0
    for source in sources:
        sent = source.tally.sent
        through += int(sent * _share_beyond(source, shares) + 1e-6) + source.through - sent
    totals = [source.total for source in sources]
    known = [total for total in totals if total is not None]
    return through, sum(known) if known and len(known) == len(totals) else None


def _share_beyond(station: Station, shares: dict[Station, float]) -> float:
    """Which share of what a node sent is through all the nodes after it."""
    if station not in shares:
        behind = [_share(outlet.station) * _share_beyond(outlet.station, shares) for outlet in station.outlets]
        shares[station] = min(behind, default=1.0)
    return shares[station]


def _share(station: Station) -> float:
    """Which share of what came to a node is through it."""
    came = station.tally.received + station.unseen
    return max(0.0, 1.0 - station.unfinished / came) if came else 1.0
