"""The content of files in Redis, in pieces, by its digest: present once, whoever sent it, as long as somebody does."""

from __future__ import annotations

import time
from collections.abc import Iterator

from celerypipe.errors import CodecError, NodeFailed
from celerypipe.message.files import PIECE, File, Origin
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, Trouble, accepted

#: Seconds that a file may be away: a Redis that lost it gets it again from its runner.
PATIENCE = 20.0
_LOOK = 0.1


def names(called: keys.Names, file: File) -> list[str]:
    """The keys of a file: the one that says that all are there, and its pieces."""
    pieces = -(-file.size // PIECE)
    return [called.file(file.digest), *[called.file_piece(file.digest, number) for number in range(pieces)]]


def is_there(client: Client, file: File) -> bool:
    """Is all of it in Redis? Then it lives on for another while."""
    there: list[int] = accepted(client.together(*renewing(client.names, file)))
    return all(there)


def renewing(called: keys.Names, file: File) -> list[Command]:
    """Return the commands that let it live on; each answers 0 for what is gone."""
    return [("PEXPIRE", name, keys.DATA_TTL) for name in names(called, file)]


def put(client: Client, file: File, origin: Origin) -> None:
    """Store it; :class:`CodecError` if it was changed or is gone. The last key says that it is whole."""
    try:
        for number, piece in enumerate(origin.pieces(file)):
            client.call("SET", client.names.file_piece(file.digest, number), [piece], "PX", keys.DATA_TTL)
    except CodecError:
        forget(client, file)
        raise
    client.call("SET", client.names.file(file.digest), str(file.size), "PX", keys.DATA_TTL)


def pieces(client: Client, file: File) -> Iterator[bytes]:
    """Yield its content as it is in Redis; :class:`NodeFailed` if it is not there, and does not come."""
    left, number = file.size, 0
    while left > 0:
        piece = _piece(client, file, client.names.file_piece(file.digest, number))
        yield piece
        left, number = left - len(piece), number + 1


def _piece(client: Client, file: File, name: str) -> bytes:
    until = time.monotonic() + PATIENCE
    while not (piece := _got(client, name)):
        if time.monotonic() > until:
            raise NodeFailed(
                f"the content of the file {file.name!r} is not in Redis; its runner sends it for as long as it lives"
            )
        time.sleep(_LOOK)
    return piece


def _got(client: Client, name: str) -> bytes | None:
    try:
        found: bytes | None = client.call("GET", name)
        return found
    except Trouble:  # Redis is away, as it may be: the next look connects anew
        client.close()
        return None


def forget(client: Client, file: File) -> None:
    """Remove what is not what was sent; its runner, which looks after it, sends it again."""
    client.call("UNLINK", *names(client.names, file))
