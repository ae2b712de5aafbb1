"""Asking a run that is going on to replay dead letters: a list in Redis, which its runner looks at.

Only names travel. The runner reads the letters in its own folder, so that nobody can hand it a message this way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from celerypipe.errors import ConfigError, RunError
from celerypipe.redis import keys
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Command, connect, explained
from celerypipe.redis.keys import Names
from celerypipe.runner.folder.letter import NAME

#: Seconds a runner gets to take what it was asked for; it looks once or twice a second.
PATIENCE = 10.0
#: Names that a runner takes at a time.
MOST = 1000


def request_replay(address: Address, run: str, names: Sequence[str]) -> None:
    """Ask a run to replay letters; return when its runner has taken the request.

    :class:`ConfigError`: there is no such run; :class:`RunError`: it ended, or did not take it.
    """
    with connect(address, name="celerypipe-ask") as client, explained(address):
        key = client.names.replay(run)
        if client.get(client.names.run(run)) != b"running":
            raise ConfigError(f"there is no run {run!r} active in this Redis; its id is in its report and its events")
        with client.pipeline(transaction=True) as together:
            together.rpush(key, *names)
            together.pexpire(key, keys.RUN_TTL)
            together.execute()
        until = time.monotonic() + PATIENCE
        while client.exists(key):
            if client.get(client.names.run(run)) == b"running" and time.monotonic() < until:
                time.sleep(0.05)
                continue
            client.delete(key)
            raise RunError(f"run {run!r} did not take the dead letters: it ended, or keeps none in a folder")


def taking_requests(names: Names, run: str) -> Command:
    """Return the command that takes what was asked of a run; :func:`requests_in` reads its answer."""
    return ("LPOP", names.replay(run), MOST)


def requests_in(answer: Any) -> list[str]:
    """Return what was asked for; what cannot be a name of a letter is passed over.

    Nothing where Redis refuses (a user without LPOP, a key of another type): a run does not end for a question.
    """
    taken = () if isinstance(answer, Exception) else answer or ()
    names = [raw.decode("ascii", "replace") for raw in taken]
    return [name for name in names if NAME.fullmatch(name)]
