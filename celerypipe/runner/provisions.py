"""What a runner provides each of its runs and sessions with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from celerypipe.cache.node import CacheUse
from celerypipe.contract.watcher import Watcher
from celerypipe.message.logs import LogLine
from celerypipe.redis.address import Address
from celerypipe.redis.signing import Keyring
from celerypipe.settings import CacheSettings, RedisSettings


@dataclass(frozen=True, slots=True)
class Provisions:
    """Where Redis is and what of it may be used, the keys, the result cache, and who is told what happens.

    ``redis``: None without one. ``local``: what is warped runs in this process all the same,
    through the codec. ``budget``: bytes that may be on their way at one time. ``say`` gets one sentence at a time,
    ``watchers`` hear of each message. ``reload``: code that is edited is loaded while a run goes on.
    ``logs`` gets what workers print, and what they log from ``level`` on; None: they send nothing.
    ``record``: a folder that the run is recorded in, and how many bytes of it.
    """

    redis: Address | None
    local: bool
    budget: int
    shared_memory: bool
    keyring: Keyring | None = field(repr=False)
    cache: CacheSettings
    use: CacheUse
    say: Callable[[str], None]
    reload: bool = False
    watchers: Sequence[Watcher] = ()
    logs: Callable[[LogLine], None] | None = None
    level: int = logging.WARNING
    record: tuple[Path, int] | None = None

    @property
    def named_for_all(self) -> bool:
        """Does a command that is typed later find what this run asked the result cache, without being told where?"""
        there = RedisSettings.find().or_default
        return self.cache.redis is not None or (self.redis is not None and self.redis == there)
