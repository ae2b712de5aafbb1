"""A hand on a run that goes on: a property is changed, a node suspended or started anew, on all its instances."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from celerypipe.catalogue.capture import here
from celerypipe.errors import CelerypipeError, ConfigError, did_you_mean
from celerypipe.mailbox.holder import Holder
from celerypipe.mailbox.orders import MOST, Obeyed, Order, answers, summing_up, value_too_strange
from celerypipe.redis.connection import Client, accepted, explained
from celerypipe.runner.carrier.carrier import RedisCarrier
from celerypipe.runner.carrier.loopback import Loopback
from celerypipe.runner.stations.cache import RunCache
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.local import LocalStation
from celerypipe.runner.stations.ordered import Pending
from celerypipe.runner.stations.station import Station
from celerypipe.runner.warp.warp import Warp

logger = logging.getLogger(__name__)

#: Seconds that instances have to answer: a worker looks once a second.
PATIENCE = 1.5
#: Seconds between two looks at what they said.
LOOK = 0.03


class Control:
    """Gives orders to the nodes of one run, one after another."""

    def __init__(
        self,
        course: Course,
        stations: Mapping[str, Station],
        loopbacks: Callable[[Warp], Loopback | None],
        carrier: RedisCarrier | None,
        cache: RunCache,
    ) -> None:
        """``loopbacks``: what a warped node runs on that runs here."""
        self._course = course
        self._stations = stations
        self._loopback_of = loopbacks
        self._carrier = carrier
        self._cache = cache
        self._given: list[Order] = []
        #: Nodes of which nobody knows how each instance is configured, since one refused or was late.
        self._unsure: set[str] = set()
        self._one_at_a_time = threading.Lock()
        #: Nodes that hand on what they get.
        self.suspended: set[str] = set()

    def answer(self, order: Order) -> None:
        """Do what came through Redis, and say there what came of it."""
        found: list[Obeyed] = []
        refusal, paths = "", []
        try:
            if order.kind == "trace":
                paths = self._course.traces.to_list()
            else:
                found = self.obey(order)
        except CelerypipeError as error:
            refusal = str(error)
        except Exception as error:  # a Redis that is away or refuses, or a defect of ours: no reason to end a run
            logger.exception("an order to node %r came to nothing", order.node)
            refusal = f"the run could not do it: {error}"
        assert self._carrier is not None  # noqa: S101  # it came through that
        with self._carrier.asking() as client:
            accepted(client.together(*summing_up(client.names, order.id, found, refusal, paths)))

    def obey(self, order: Order) -> list[Obeyed]:
        """Change a node, suspend it or start it anew; return what came of it at each instance that is at work now."""
        found = self.give(order)
        name = f" {order.property}" if order.property else ""
        late = sum(each.late or bool(each.error) for each in found)
        self._course.say(f"{order.node}: {order.kind}{name}" + (f"; {late} of {len(found)} did not" if late else ""))
        return found

    def check(self, order: Order) -> None:
        """Raise :class:`ConfigError` for what cannot be."""
        station = self._stations.get(order.node)
        names = [name for name in self._stations if not name.startswith("(")]
        if station is None or order.node not in names:
            hint = did_you_mean(order.node, names)
            raise ConfigError(f"there is no node {order.node!r} in this run{hint}; there are {', '.join(names)}")
        if station.node.type == "source":
            raise ConfigError(
                f"{order.node!r} is a source, which cannot be changed while it runs; cancel the run and start it "
                "again with --set"
            )
        if not order.property and order.kind == "set":
            raise ConfigError("name the property that is to change")
        if error := value_too_strange(order):
            raise error
        if station.node.warped and order.kind == "restart" and station.node.warp_configuration.pinned:
            raise ConfigError(f"{order.node!r} is pinned: what it remembers would be lost; start the run again instead")
        if len(self._given) >= MOST:
            raise ConfigError(f"this run took {MOST} orders, and takes no more; start it again with --set")

    def give(self, order: Order) -> list[Obeyed]:
        """Give an order, and return what came of it at each instance that is at work now, within ``PATIENCE``.

        Those that begin later do it too. None: there is no such instance now.
        """
        with self._one_at_a_time:
            return self._give(order)

    def _give(self, order: Order) -> list[Obeyed]:
        self.check(order)
        self._given.append(order)
        station = self._stations[order.node]
        self._cache.pause(order.node)  # what is asked and kept from now on is another node's
        sure = order.node not in self._unsure
        self._unsure.add(order.node)  # whatever is raised now
        found = self._there(station, order)
        if order.kind == "suspend":
            self.suspended.add(order.node)
        elif order.kind == "unsuspend":
            self.suspended.discard(order.node)
        refused = bool(found) and all(each.error for each in found)  # then nothing was changed anywhere
        if sure and not any(each.late or (each.error and not refused) for each in found):
            self._unsure.discard(order.node)
        if not refused:
            self._cache.changed(order.node, order.kind, order.property, order.value)
        if order.node not in self.suspended | self._unsure:
            self._cache.resume(order.node)
        return found

    def given(self, node: str) -> list[Order]:
        """Return all that was ordered of a node."""
        return [order for order in self._given if order.node == node]

    def _there(self, station: Station, order: Order) -> list[Obeyed]:
        if isinstance(station, LocalStation):
            return _here(station.ordered(order))
        assert isinstance(station, Warp)  # noqa: S101  # a source was refused
        if (loopback := self._loopback_of(station)) is not None:
            return _here(loopback.ordered(order))
        assert self._carrier is not None  # noqa: S101  # else it runs here
        return self._elsewhere(station, order, self._carrier)

    @staticmethod
    def _elsewhere(warp: Warp, order: Order, carrier: RedisCarrier) -> list[Obeyed]:
        until = time.monotonic() + PATIENCE
        with explained(carrier.address), carrier.asking() as client:
            carrier.holdings.order(client, order)
            holders = carrier.holders(client, warp)
            said: dict[str, str] = {}
            while not said.keys() >= set(holders) and time.monotonic() < until:
                time.sleep(LOOK)
                said = answers(client, order.id)
                holders = [each for each in holders if each in said] + _still(client, warp, carrier, holders, said)
        every = {**dict.fromkeys(holders), **said}
        return [
            Obeyed(Holder.read(holder).process.where, text or "", late=text is None) for holder, text in every.items()
        ]


def _here(pending: Pending) -> list[Obeyed]:
    late = not pending.done.wait(PATIENCE)
    return [Obeyed(here(), pending.error, late)]


def _still(
    client: Client, warp: Warp, carrier: RedisCarrier, holders: Sequence[str], said: Mapping[str, str]
) -> list[str]:
    """Those that have not answered, and still have their bells: who let go of it has nothing to answer."""
    left = [each for each in holders if each not in said]
    there = set(carrier.holders(client, warp)) if left else set()
    return [each for each in left if each in there]
