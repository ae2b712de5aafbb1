"""What a worker serves: the nodes of its modules and plugin folders, the installed and the built-in ones."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import celery
import redis

from celerypipe import codec
from celerypipe.catalogue.catalogue import BUILT_IN, Catalogue, Listing
from celerypipe.catalogue.modules import imported
from celerypipe.check.installed import unmet
from celerypipe.contract.programs import Programs
from celerypipe.contract.reach import Reach
from celerypipe.mailbox import protocol
from celerypipe.mailbox.blob import packing
from celerypipe.mailbox.presence import Presence
from celerypipe.mailbox.schemas import vouched
from celerypipe.process import collector
from celerypipe.process.version import VERSION
from celerypipe.settings import Settings
from celerypipe.worker.activation.place import Worker
from celerypipe.worker.activation.task import NodeTask

#: Ends the error about a path that a pipeline sends to a worker.
CURE = "if it is meant, start the worker with CELERYPIPE_ALLOW={folder}"


#: Names the marks that a worker serves, of all those that it could; parted by commas.
ONLY = "CELERYPIPE_ONLY"


class Served:
    """The marks of one worker. A source is never among them: it runs where its pipeline runs.

    ``allowed``: the folders that its nodes may touch; the paths they are sent come from whoever reaches Redis.
    ``programs``: those that they may run.
    """

    def __init__(
        self,
        imports: tuple[str, ...],
        plugins: tuple[Path, ...],
        allowed: tuple[Path, ...] = (),
        programs: Programs = MappingProxyType({}),
    ) -> None:
        self.imports = imports
        self.programs = programs
        self.plugins = plugins
        self.allowed = allowed
        self.listings: dict[str, Listing] = {}

    @collector.aside()
    def load(self, named_by: Mapping[str, Path | None]) -> None:
        """Import everything; :class:`ConfigError` in one line says what does not import, and which file wanted it."""
        found = list(Catalogue(self.plugins).listings())
        for name in self.imports:
            file = named_by.get(name)
            found += Catalogue.of_module(imported(name, f"{file}: module {name!r}" if file else f"module {name!r}"))
        # A later one wins: a module that was asked for goes before what happens to be installed.
        reach = Reach.of(self.allowed, CURE, self.programs)
        only = {mark for mark in os.environ.get(ONLY, "").split(",") if mark}
        found += [Catalogue(self.plugins).find(mark) for mark in only if "." in mark]
        self.listings = {
            listing.mark: replace(listing, reach=reach)
            for listing in found
            if listing.type != "source" and (not only or listing.mark in only)
        }

    @property
    def has_own(self) -> bool:
        """Does it serve more than what is built in?"""
        return any(listing.origin != BUILT_IN for listing in self.listings.values())

    def unmet(self) -> dict[str, list[str]]:
        """Return what its plugins ask for and do not find here, by mark."""
        catalogue = Catalogue(self.plugins)
        found = {mark: catalogue.plugin(mark, each.type) for mark, each in self.listings.items() if "." not in mark}
        files = {mark: plugin.requirements for mark, plugin in found.items() if plugin is not None}
        return {mark: lines for mark, file in files.items() if file is not None and (lines := unmet(file))}

    def register(self, app: Any, worker: Worker) -> None:
        """Make each node a task of the application, named after its mark.

        Celery's own tasks go: ``celery.map``, ``celery.chunks`` and the like run other tasks as their arguments say.
        """
        for name in [name for name in app.tasks if name.startswith("celery.")]:
            app.tasks.unregister(name)
        for listing in self.listings.values():
            app.register_task(NodeTask(listing, worker))


def presence_record(worker: Worker, served: Served) -> Presence:
    """Return what the worker says of itself for as long as it lives."""
    own = str(worker.process(os.getpid()))
    return {
        "id": own,
        "host": worker.host,
        "pid": os.getpid(),
        "pool": worker.pool,
        "slots": worker.slots,
        "queues": list(worker.queues),
        "protocol": list(protocol.SPOKEN),
        "marks": {
            mark: vouched(listing.schema(), worker.keyring, own) for mark, listing in sorted(served.listings.items())
        },
        "unmet": served.unmet(),
        "versions": {
            "celerypipe": VERSION,
            "codec": codec.CODEC_VERSION,
            "celery": celery.__version__,
            "python": ".".join(map(str, sys.version_info[:3])),
            "redis-py": redis.__version__,
        },
        "started": time.time(),
        "interrupts": worker.pool in ("prefork", "solo"),
        "keeps_interrupted": worker.pool in ("prefork", "solo") and worker.keeps_interrupted,
        "compressions": packing.installed(),
        "keys": worker.keyring.ids if worker.keyring is not None else [],
        "programs": {
            name: {"values": each.open, "missing": each.missing} for name, each in sorted(served.programs.items())
        },
        "cache": Settings.from_environment().cache.shown,
    }


def processes_of(pool: Any) -> list[int]:
    """The processes that activations run in: those of the pool, or this one. One that just starts has no number yet."""
    try:
        return [pid for pid in pool.info.get("processes", (os.getpid(),)) if pid]
    except (AttributeError, TypeError):  # the pool is being restarted
        return []
