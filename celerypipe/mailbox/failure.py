"""What an activation says of a failure, written there and read by the runner."""

from __future__ import annotations

from celerypipe import codec
from celerypipe.errors import CodecError


def failure(kind: str, name: str, text: str, traceback: str = "", *, worker: str = "") -> bytes:
    """Return what a reply says of a failure; ``worker``: the activation it happened to, if that is not who says it."""
    return codec.encode_value({"kind": kind, "type": name, "text": text, "traceback": traceback, "worker": worker})


def said_of(data: bytes) -> tuple[str, str, str, str]:
    """What an activation says of a failure: kind, text, traceback or nothing, and to whom else it happened, if so."""
    said = codec.decode_value(data)
    found = tuple(said.get(name) for name in ("kind", "text", "traceback", "worker")) if type(said) is dict else ()
    match found:
        case (str(kind), str(text), str(remote_traceback), str() | None):
            return kind, text, remote_traceback, found[3] or ""
    raise CodecError("malformed reply: a failure without kind, text and traceback")
