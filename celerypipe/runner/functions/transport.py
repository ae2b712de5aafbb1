"""How the calls of one session travel: through Redis, or for a local runner through a loopback for each function."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from celerypipe.catalogue.catalogue import Catalogue, Listing
from celerypipe.catalogue.instance import Instance
from celerypipe.codec import Content
from celerypipe.definition.pipeline import Pipeline
from celerypipe.mailbox.blob.blob import Gone, Store
from celerypipe.mailbox.presence import Presence
from celerypipe.message.files import File
from celerypipe.redis import keys
from celerypipe.redis.connection import Broken, Client, OneLine, accepted, connect, explained
from celerypipe.runner.assembly import record_of
from celerypipe.runner.carrier.cargo import Sealed
from celerypipe.runner.carrier.carrier import RedisCarrier
from celerypipe.runner.carrier.listener import CarrierListener
from celerypipe.runner.carrier.loopback import Loopback
from celerypipe.runner.functions.dispatch import Dispatch
from celerypipe.runner.functions.function import CallDefinition, Function
from celerypipe.runner.provisions import Provisions
from celerypipe.runner.stations.cache import RunCache
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.carriage import Carrier
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.lookup import CacheLookup
from celerypipe.runner.warp.warp import Warp

T = TypeVar("T")

#: What a session is called in ``celerypipe status``.
NAME = "functions"
#: Seconds for which a Redis that is away is waited for by who asks for a result that lies there.
PATIENCE = 30.0


class CallTransport(CarrierListener):
    """The carrier of a session, and its warps. A local one runs calls here, one after another for each function."""

    def __init__(self, provisions: Provisions, plugins: Sequence[Path]) -> None:
        self.course = Course(
            secrets.token_hex(6), folder=None, say=provisions.say, pipeline=NAME, watchers=provisions.watchers
        )
        self.carrier = None if provisions.local else RedisCarrier(self.course, provisions, self)
        self._cache = RunCache(self.course, provisions)
        self._cache.open()
        self._catalogue = Catalogue(plugins)
        self._warps: list[Warp] = []
        self._loopbacks: list[Loopback] = []
        self.patience = PATIENCE
        self._client: Client | None = None
        self._asking = threading.Lock()
        self._pid = os.getpid()

    @property
    def local(self) -> bool:
        """Do calls run here?"""
        return self.carrier is None

    def open(self, function: Function, dispatch: Dispatch) -> Warp:
        """Make a function ready to be called; raises what says that it cannot be, as a run does before it begins."""
        names = {warp.name for warp in self._warps}
        known_as = function.name if len(function.name) <= 100 else function.mark[-100:]
        name, twins = known_as, 0
        while name in names:  # of another module, or defined anew
            twins += 1
            name = known_as[: 100 - twins] + twins * "'"
        node = function.definition(name)
        listing = Listing(function.mark, function.node, "import")
        if self.carrier is None:
            warp = self._open_here(node, listing, dispatch)
        else:
            warp = self._open_there(node, listing, dispatch, self.carrier)
        self._warps.append(warp)
        warp.start()
        return warp

    def workers_seen(self, client: Client, name: str, workers: Sequence[Presence]) -> None:
        """Let the cache know whose code it is asked about."""
        self._cache.see(client, name, workers)

    def _open_here(self, node: CallDefinition, listing: Listing, dispatch: Dispatch) -> Warp:
        loopback = Loopback(self.course, node.name, lambda: Instance(listing, None, name=node.name))
        loopback.prepare()
        loopback.start()
        self._loopbacks.append(loopback)
        return self._made(node, listing, loopback, dispatch)

    def _open_there(self, node: CallDefinition, listing: Listing, dispatch: Dispatch, carrier: RedisCarrier) -> Warp:
        warp = self._made(node, listing, carrier, dispatch)
        begun = bool(self._warps)
        # Once it goes on, its post thread uses the same client.
        with carrier.sender.lock if begun else contextlib.nullcontext(), explained(carrier.address):
            carrier.inspect(Pipeline(name=NAME, nodes=[node], links=[]), self._catalogue)
            around = [each for each in (*self._warps, warp) if each.queue == node.queue]
            records = {
                each.name: record_of(
                    each.node,
                    configuration=None,
                    rooms=sum(other.limits.window for other in (*self._warps, warp)),
                    budget=carrier.budget,
                    neighbours=[other.name for other in around],
                    level=carrier.level,
                )
                for each in around
            }
            carrier.open([warp], records)
        if not begun:
            carrier.start()
        return warp

    def _made(self, node: CallDefinition, listing: Listing, carrier: Carrier[Warp], dispatch: Dispatch) -> Warp:
        cache = self._cache.of_warped(node, listing.schema, dict)
        lookup = CacheLookup(cache, self._cache.unknown, dispatch.depart) if cache is not None else None
        return Warp(self.course, node, carrier, dispatch, lookup)

    def send(self, function: Function, files: Sequence[File]) -> None:
        """Send files now, while only who submits waits for it; not if the function may not be called for them at all.

        :class:`CodecError` if one was changed.
        """
        if files and self.carrier is not None and not self.remembers(function):
            self.carrier.files.send(files, keep=True)

    def remembers(self, function: Function) -> bool:
        """Are results of this function looked up and kept?"""
        return self._cache.on and function.node.options.cache not in (None, False)

    def is_given(self, warp: Warp, flight: Flight) -> bool:
        """Has a worker been given this message?"""
        carrier = warp.carrier
        if isinstance(carrier, Loopback):
            return carrier.is_running(flight)
        if not flight.entry or self.carrier is None:
            return False
        stream = self.carrier.mailboxes[warp.name].stream
        with contextlib.suppress(*Broken):
            entry = flight.entry
            return bool(self._ask(lambda client: client.xpending_range(stream, keys.GROUP, entry, entry, 1)))
        return False

    # -- bytes that lie apart ----------------------------------------------------------------------------------------

    def content(self, reference: str) -> Content:
        """Return the bytes behind a reference. A Redis that is away is waited for.

        Raises :class:`Gone`, :class:`CodecError`.
        """
        if self.carrier is None:
            raise Gone(altered=False)
        store = self.carrier.blobs.store
        until = time.monotonic() + self.patience
        while True:
            try:
                return self._ask(lambda client: store.open(client, [reference])).content(reference)
            except Broken:
                if self.course.over.wait(0.2) or time.monotonic() > until:
                    with explained(self.carrier.address):
                        raise

    def sealed(self, data: bytes, reference: str) -> Sealed:
        """Return a result whose bytes are known to be there."""
        return Sealed(data, self.carrier.blobs.hold(reference) if reference and self.carrier is not None else None)

    def copied(self, data: bytes, content: Content) -> Sealed:
        """Return a result whose bytes were put into Redis: not every worker sees the memory of this machine."""
        if self.carrier is None:
            raise Gone(altered=False)
        signed, names = self.carrier.keyring is not None, self.carrier.address.names
        store = Store(self.course.run_id, signed=signed, names=names)
        reference, commands = store.put([content])
        self._ask(lambda client: accepted(client.together(*commands)))
        return self.sealed(data, reference)

    def _ask(self, question: Callable[[Client], T]) -> T:
        if os.getpid() != self._pid:  # what is written on that line is the parent's, and its lock may be held for ever
            raise RuntimeError("this process was forked from the one that submitted this call, and cannot ask about it")
        if self.carrier is None:
            raise Gone(altered=False)
        with self._asking:
            if self._client is None:
                self._client = connect(self.carrier.address, name="celerypipe-calls", kind=OneLine)
            try:
                return question(self._client)
            except Broken:
                self._client.close()
                raise

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self, ending: str) -> None:
        """Let the workers go and remove what the session holds in Redis."""
        for loopback in self._loopbacks:
            loopback.close()
        if self.carrier is not None:
            self.carrier.close(ending)
        self._cache.close()
        with self._asking:
            if self._client is not None:
                self._client.close()

    def count_last(self) -> None:
        """Add what was counted last to the metrics."""
        if self.carrier is not None:
            self.carrier.counting.finish(self.carrier.address)
