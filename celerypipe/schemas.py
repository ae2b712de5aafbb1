"""What workers told of a class with a declared version: kept in Redis for runs that find no worker.

Without it nobody could ask the result cache for a warped node: what its arguments are when they are left out, and which
notes it looks at, is known to its workers alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from celerypipe import keys
from celerypipe.connection import Client
from celerypipe.presence import MarkShape

#: What a code begins with that its author answers for.
DECLARED = "version "

#: A longer one is none.
LIMIT = 1024 * 1024


def remember(client: Client, schema: Mapping[str, Any]) -> None:
    """Keep what was told."""
    client.set(keys.cache_schema(schema["mark"]), json.dumps(schema), px=keys.CACHE_TTL)


def recall(client: Client, mark: str) -> dict[str, Any] | None:
    """Return what was told of this mark last; None if nobody told anything that can be read."""
    text: Any = client.getrange(keys.cache_schema(mark), 0, LIMIT)
    try:
        schema = json.loads(text)
        shape = msgspec.convert(schema, MarkShape)
    except (ValueError, RecursionError):  # a stranger wrote there, or nobody
        return None
    return {**msgspec.to_builtins(shape), **schema} if shape.mark == mark else None
