"""What became of a message in the nodes after the one that was asked, told in the reply of that one.

What comes out of a node may be handed to the next one in the same process, before the runner hears of it. The reply
then has one :class:`Step` for each message that came out; each of them has one for each message that came out there.
None stands for a message that nobody was handed: the runner sends it, as ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from celerypipe.errors import CodecError

#: Nodes in a row that a message passes at most without coming back in between.
MOST = 16

#: Seconds beyond which a time that a reply says is none: it becomes part of means, and those decide about bells.
LONGEST = 1e9

#: A step that was not over when it was told: the node is at work on that message.
AT_WORK = b"w"


class Step(msgspec.Struct, array_like=True, frozen=True):
    """What one node made of one message: a kind as replies have it, seconds ``update`` ran, and bytes or a blob.

    ``console``: what it printed, see :mod:`celerypipe.message.console`.
    """

    kind: bytes
    ran: float = 0.0
    blob: str = ""
    data: bytes = b""
    onward: tuple[Step | None, ...] = ()
    console: bytes = b""


Steps = tuple[Step | None, ...]

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Steps)


def pack(steps: Sequence[Step | None]) -> bytes:
    """Return steps as bytes; none if there are no steps."""
    return _ENCODER.encode(steps) if steps else b""


def _look(steps: Steps) -> None:
    for step in filter(None, steps):
        if not 0.0 <= step.ran <= LONGEST:
            raise CodecError(f"malformed reply: {step.ran} s are no time")
        _look(step.onward)


def unpack(data: bytes) -> Steps:
    """Return the steps; none if there are no bytes. Raises :class:`CodecError`."""
    if not data:
        return ()
    try:
        steps: Steps = _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CodecError(f"malformed reply: {error}") from error
    _look(steps)
    return steps
