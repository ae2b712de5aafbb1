"""``console``: a sink that prints one line a message."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from celerypipe.contract.contract import Sink
from celerypipe.message.message import Message
from celerypipe.message.payload import Array, Audio, Batch, Bytes, Image, Video
from celerypipe.nodes.parts.arguments import choice, placeholders, whole

#: Texts and lists inside a payload are cut to this many characters and items before the line is.
LONGEST_TEXT = 2000
LONGEST_LIST = 50


class ConsoleSink(Sink):
    """Prints one line a message; arrays and bytes are named by shape and size, control characters are escaped.

    ``format``: the line, as for ``str.format``, with the fields ``payload``, ``json`` (the whole message, nothing
    shortened), ``meta``, ``id``, ``creator``, ``origin``, ``sequence``, ``version``; ``"{meta[name]}: {payload}"``
    ``stream``: ``"stdout"`` or ``"stderr"``
    ``width``: a longer line is cut to this many characters; 0 never cuts, nor is a line with ``json`` ever cut
    """

    def __init__(
        self, format: str = "{payload}", stream: Literal["stdout", "stderr"] = "stdout", width: int = 200
    ) -> None:
        self.format = format
        self.fields = _fields(format)
        self.stream = choice("stream", stream, ("stdout", "stderr"))
        self.width = 0 if "json" in self.fields else whole("width", width)

    def update(self, message: Message) -> None:
        """Print the line; LookupError when ``format`` asks for a meta entry that the message lacks."""
        try:
            line = self.format.format(**{field: FIELDS[field](message) for field in self.fields})
        except KeyError as error:
            had = ", ".join(map(repr, message.meta)) or "nothing"
            raise LookupError(f"format: {self.format!r} asks for meta {error}; this message's meta has {had}") from None
        # A control character of a payload must not move the cursor, or start a second line.
        line = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)
        if self.width and len(line) > self.width:
            line = line[: self.width - 1] + "…"
        # Looked up each time: whoever captures or redirects the stream replaces the object.
        stream = sys.stdout if self.stream == "stdout" else sys.stderr
        encoding = stream.encoding or "utf-8"
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()


def brief(payload: Any) -> str:
    """Return a payload as one short text: a str as it is, anything else as JSON with arrays named by their shape."""
    text = _short(payload)
    return text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)


def _short(value: Any) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "…"
        case np.generic():
            return _short(value.item())
        case Batch():
            return [_short(message.payload) for message in value.messages]
        case Mapping():
            return {str(key): _short(item) for key, item in value.items()}
        case list() | tuple():
            rest = [f"… {len(value) - LONGEST_LIST} more"] if len(value) > LONGEST_LIST else []
            return [_short(item) for item in value[:LONGEST_LIST]] + rest
    return _named(value)


def _named(value: Any) -> str:
    """Return what stands for a value that is too large to print."""
    match value:
        case bytes() | bytearray():
            return f"<{len(value)} bytes>"
        case Bytes():
            return f"<{len(value.cnt)} bytes>"
        case np.ndarray():
            return f"<array {_shape(value)}>"
        case Array():
            return f"<Array {_shape(value.array)}>"
        case Image():
            return f"<Image {_shape(value.image)} {value.pixel_format}".rstrip() + ">"
        case Audio():
            return f"<Audio {_shape(value.audio)} at {value.sampling_rate} Hz>"
        case Video():
            return f"<Video of {len(value.video)} images>"
    return str(value)


def _shape(array: np.ndarray[Any, Any]) -> str:
    return f"{'×'.join(map(str, array.shape)) or 'scalar'} {array.dtype}"


FIELDS: dict[str, Callable[[Message], Any]] = {
    "payload": lambda message: brief(message.payload),
    "json": lambda message: message.to_json(),
    "meta": lambda message: message.meta,
    "id": lambda message: message.id,
    "creator": lambda message: message.creator,
    "origin": lambda message: message.origin,
    "sequence": lambda message: message.sequence,
    "version": lambda message: message.version,
}


def _fields(line: str) -> set[str]:
    """Return the names of the fields in a format; ValueError when it is no format or asks for an unknown one."""
    fields = {name.partition("[")[0].partition(".")[0] for name in placeholders("format", line)}
    if unknown := sorted(fields - FIELDS.keys()):
        raise ValueError(f"format: {line!r} asks for {unknown[0]!r}; the fields are {', '.join(FIELDS)}")
    return fields
