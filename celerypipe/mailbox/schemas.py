"""What workers told of a class with a declared version: kept in Redis for runs that find no worker.

Without it nobody could ask the result cache for a warped node: what its arguments are when they are left out, and which
notes it looks at, is known to its workers alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from celerypipe.mailbox.presence import MarkShape
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.signing import Keyring

#: What a code begins with that its author answers for.
DECLARED = "version "

#: A longer one is none.
LIMIT = 1024 * 1024

#: Where the signature of a schema is, in itself, and for whom one is signed that lies in Redis.
SIGNATURE = "signature"
ANYBODY = ""


def vouched(schema: Mapping[str, Any], keyring: Keyring | None, worker: str = ANYBODY) -> dict[str, Any]:
    """Return a schema as this worker vouches for it, with its signature if there are keys.

    It decides what results are kept by: who altered it could have one kept as the answer to another question.
    """
    bare = {name: value for name, value in schema.items() if name != SIGNATURE}
    return (
        bare if keyring is None else {**bare, SIGNATURE: keyring.signer("schema", worker).signature(_text(bare)).hex()}
    )


def is_vouched(schema: Mapping[str, Any], keyring: Keyring | None, worker: str = ANYBODY) -> bool:
    """Did somebody with our keys tell this, as this worker? Without keys everybody is believed."""
    if keyring is None:
        return True
    bare = {name: value for name, value in schema.items() if name != SIGNATURE}
    try:
        signature = bytes.fromhex(str(schema.get(SIGNATURE, "")))
        return keyring.signer("schema", worker).verifies(_text(bare) + signature)
    except ValueError:
        return False


def _text(schema: Mapping[str, Any]) -> bytes:
    return json.dumps(schema).encode()  # in the order that it has, and keeps on its way


def remember(client: Client, schema: Mapping[str, Any], keyring: Keyring | None) -> None:
    """Keep what was told."""
    client.set(client.names.cache_schema(schema["mark"]), json.dumps(vouched(schema, keyring)), px=keys.CACHE_TTL)


def recall(client: Client, mark: str, keyring: Keyring | None) -> dict[str, Any] | None:
    """Return what was told of this mark last; None if nobody told anything that can be read and believed."""
    text: Any = client.getrange(client.names.cache_schema(mark), 0, LIMIT)
    try:
        schema = json.loads(text)
        shape = msgspec.convert(schema, MarkShape)
    except (ValueError, RecursionError):  # a stranger wrote there, or nobody
        return None
    believed = shape.mark == mark and is_vouched(schema, keyring)
    return {**msgspec.to_builtins(shape), **schema} if believed else None
