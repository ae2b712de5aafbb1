"""A dead letter: one message that was given up, and why.

A value; the store is in :mod:`celerypipe.runner.folder.letters`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

#: Names of letters; what is not made of these characters becomes a digest. No name leads out of a folder.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,150}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that was given up: which one, where, when, and why.

    ``attempts`` is how often it was tried (0: it was refused untried), ``replays`` how often it came back after a
    replay; ``at`` Unix time in seconds; ``size`` the bytes of both files; ``note``: what else there is to say;
    ``not_kept`` says why its message is not there, if it is not. ``link``: the node that it came from, if it could not
    be joined; any other one is past the join. ``key`` is the same in all runs that go on one from another; empty where
    none does.
    """

    name: str
    node: str
    message_id: str
    error: str
    text: str
    attempts: int
    at: float
    size: int
    worker: str = ""
    traceback: str = ""
    note: str = ""
    not_kept: str = ""
    pipeline: str = ""
    run: str = ""
    replays: int = 0
    starts_at: str = ""
    key: str = ""
    link: str = ""

    @property
    def start(self) -> str:
        """The node that a replay feeds: where it died, unless only what it was made from is left."""
        return self.starts_at or self.node


def name_of(message_id: str, node: str) -> str:
    """Return the name of a letter. Ids come over the wire, and node names may hold anything."""
    name = f"{message_id}.{node}"
    if NAME.fullmatch(name):
        return name
    return hashlib.blake2b(f"{message_id}\0{node}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def letter_of(name: str, data: Any, at: float, size: int) -> DeadLetter | str:
    if not isinstance(data, dict) or not isinstance(data.get("node"), str) or not isinstance(data.get("message"), str):
        return f"{name}.json: says no node and no message: it is no dead letter"

    def text(key: str) -> str:
        return str(data.get(key) or "")

    def number(key: str, default: float) -> float:
        value = data.get(key, default)
        return (
            value if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15 else default
        )

    return DeadLetter(
        name=name,
        node=data["node"],
        message_id=data["message"],
        error=text("error"),
        text=text("text"),
        attempts=int(number("attempts", 0)),
        at=number("at", at),
        size=size,
        worker=text("worker"),
        traceback=text("traceback"),
        note=text("note"),
        not_kept=text("not_kept"),
        pipeline=text("pipeline"),
        run=text("run"),
        replays=int(number("replays", 0)),
        starts_at=text("starts_at"),
        key=text("key"),
        link=text("link"),
    )
