"""Who holds a bell and messages: an activation, by the name that it has in Redis, there as a consumer."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from functools import lru_cache

#: ``<host>.<pid>.<token>-<life>-<nonce>.<slot>``; :mod:`celerypipe.mailbox.scripts` reads it too.
_NAME = re.compile(r"(.*)\.(\d{1,11})\.([^.]*?)(?:-([0-9a-f]+)-([0-9a-f]+))?\.(\d{1,9})", re.ASCII | re.DOTALL)
_PLACE = re.compile(r"(.*)\.(\d{1,11})\.([^.]*)", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a worker. ``pid``: 0 if no worker named it, and then ``host`` is all that is known.

    ``life`` is random, one for each worker: containers may share a host's name, and all have a process 8.
    """

    host: str
    pid: int = 0
    life: str = ""

    def __str__(self) -> str:
        """What it is called wherever its life and death are told."""
        return f"{self.host}.{self.pid}.{self.life}"

    @classmethod
    def read(cls, text: str) -> Process:
        """Return the process that is called so."""
        found = _PLACE.fullmatch(text)
        return cls(found[1], int(found[2]), found[3]) if found else cls(text)

    @property
    def where(self) -> str:
        """Host and process in words."""
        return f"{self.host}, process {self.pid}" if self.pid else self.host


@dataclass(frozen=True, slots=True)
class Holder:
    """An activation: the process that it runs in, the token of the bell that it answers, and the slot of that bell."""

    process: Process
    token: str = ""
    slot: int = 0
    #: What tells it from another one that answers the same bell.
    nonce: str = field(default_factory=lambda: secrets.token_hex(3))

    def __str__(self) -> str:
        """Its name."""
        process = self.process
        return f"{process.host}.{process.pid}.{self.token}-{process.life}-{self.nonce}.{self.slot}"

    @staticmethod
    @lru_cache(maxsize=256)  # an activation brings many results
    def read(name: str) -> Holder:
        """Return the activation of that name; one that no worker gave is taken for that of a host."""
        found = _NAME.fullmatch(name)
        if found is None:
            return Holder(Process(name), nonce="")
        host, pid, token, life, nonce, slot = found.groups(default="")
        return Holder(Process(host, int(pid), life), token, int(slot), nonce)
