"""The result cache in one run: which nodes use it and how, and the thread that sends what it does not know."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis

from celerypipe.cache.asker import Schema
from celerypipe.cache.cache import ResultCache
from celerypipe.cache.node import NodeCache, WarpedNodeCache
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.mailbox import schemas
from celerypipe.mailbox.presence import Presence, presences_of
from celerypipe.redis.connection import Broken, Client, connect
from celerypipe.runner.provisions import Provisions
from celerypipe.runner.stations.course import Course

#: Said once by a run that has nowhere to keep results.
NOWHERE = (
    "the result cache is bypassed: it needs a Redis (--redis URL or CELERYPIPE_REDIS_URL), "
    "or CELERYPIPE_CACHE_URL=file:///FOLDER"
)

MakeSchema = Callable[[], Schema]
MakeConfiguration = Callable[[], Mapping[str, Any]]


class RunCache:
    """The result cache of one run. Without a Redis and a second tier nothing is remembered."""

    def __init__(self, course: Course, provisions: Provisions) -> None:
        self.course = course
        self._provisions = provisions
        self.on = provisions.use.on and provisions.cache.enabled
        self._local: dict[str, NodeCache] = {}
        self._warped: dict[str, WarpedNodeCache] = {}
        self._results: ResultCache | None = None
        self._is_open = self._told = False
        self._thread: threading.Thread | None = None
        self._unknown: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    # -- which nodes ------------------------------------------------------------------------------------------------

    def of(self, node: NodeDefinition, here: MakeSchema, configuration: MakeConfiguration) -> NodeCache | None:
        """Return the way to the cache of a node that runs in this process; None if it has none."""
        if node.cache is None or not self.on:
            return None
        made = NodeCache(node, configuration, here, use=self._provisions.use, say=self.course.say)
        self._local[node.name] = made
        self._reach(made)
        return made

    def of_warped(
        self, node: NodeDefinition, here: MakeSchema, configuration: MakeConfiguration
    ) -> WarpedNodeCache | None:
        """Return the way to the cache of a warped node; ``here``: what its class says, if it runs here."""
        if node.cache is None or not self.on:
            return None
        provided = self._provisions
        made = WarpedNodeCache(
            node,
            configuration,
            here,
            use=provided.use,
            say=self.course.say,
            runs_here=provided.local,
            keyring=provided.keyring,
        )
        self._warped[node.name] = made
        self._reach(made)
        return made

    # -- the run ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """The run begins: reach for the cache, if a node uses it, and for nodes that are made later as they come."""
        self._is_open = True
        self._reach(*self._local.values(), *self._warped.values())

    def _reach(self, *nodes: NodeCache) -> None:
        if not nodes or not self._is_open:
            return
        provided = self._provisions
        if provided.redis is None and provided.cache.url is None:
            if not self._told:
                self.course.say(NOWHERE)
            self._told = True
            return
        if self._results is None:
            self._results = ResultCache(
                provided.redis,
                settings=provided.cache,
                keyring=provided.keyring,
                say=self.course.say,
                run=self.course.run_id,
            )
        if self._warped and self._thread is None:
            self._thread = self.course.spawn("unknown", self.course.serve, self._unknown)
        for node in nodes:
            node.open(self._results)

    def see(self, client: Client, name: str, workers: Sequence[Presence]) -> None:
        """These workers serve the queue of this node now."""
        node = self._warped.get(name)
        if node is None or not node.see(workers):
            return
        told = None
        with suppress(redis.ResponseError):  # it is full, or this user may not: no reason to end a run
            if schema := node.declared if workers else None:
                schemas.remember(client, schema, self._provisions.keyring)
            told = None if workers else schemas.recall(client, node.mark, self._provisions.keyring)
        if not workers:
            node.recall(told)

    def move_here(self, name: str) -> None:
        """No worker serves this node: it runs in this process from now on."""
        node = self._warped.get(name)
        if node is not None:
            self.unknown(node.move_here)  # its module may take long to import

    def renew(self, name: str) -> None:
        """The class of this warped node, which runs in this process, was loaded anew."""
        node = self._warped.get(name)
        if node is not None:
            node.renew()

    def pause(self, name: str) -> None:
        """From now on nothing is asked for this node, and nothing kept: it is being changed."""
        if cached := self._local.get(name) or self._warped.get(name):
            cached.pause()

    def changed(self, name: str, kind: str, what: str, value: object) -> None:
        """All of it was changed: from now on it has another identity."""
        cached = self._local.get(name) or self._warped.get(name)
        if cached and kind == "set":
            cached.change(what, value)

    def resume(self, name: str) -> None:
        """All instances of it are what they are taken for."""
        if cached := self._local.get(name) or self._warped.get(name):
            cached.resume()

    def unknown(self, work: Callable[[], None]) -> None:
        """Have this done by a thread that may wait: the cache does not know a result, and its message is sent."""
        self._unknown.put(work)

    def close(self) -> None:
        """The run is over, and so are its claims: write what is still to be written."""
        self._unknown.put(None)
        if self._results is not None:
            self._look_once_more()
            self._results.close()

    def _look_once_more(self) -> None:
        """Look at a worker that came in the last second, which may have computed what is not kept yet."""
        early = [node for node in self._warped.values() if node.is_early]
        if early and self._provisions.redis is not None:
            with suppress(*Broken), connect(self._provisions.redis) as client:
                workers = presences_of(client, (node.queue for node in early))
                for node in early:
                    node.see([worker for worker in workers if node.queue in worker["queues"]])
