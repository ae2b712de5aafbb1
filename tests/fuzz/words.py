"""What could stand in the header of an encoding: words inside words, and extensions known and unknown."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from celerypipe import codec
from celerypipe.codec import tags

pack = msgspec.msgpack.encode
TAGS = [value for name, value in vars(tags).items() if name.isupper() and isinstance(value, int) and value < 128]


def framed(header: bytes, buffers: bytes = b"", kind: int = 0) -> bytes:
    """A preamble that is right, so that what follows it is looked at."""
    gap = bytes(-len(header) % 16) if buffers else b""
    total = 16 + len(header) + len(gap) + len(buffers)
    return struct.pack("<2sBBIQ", b"cp", codec.CODEC_VERSION, kind, len(header), total) + header + gap + buffers


def _known(tag: int, word: Any) -> Ext:
    return Ext(tag, pack(word))


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw trees of such words, with these leaves."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=6),
            st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3),
            st.builds(
                lambda tag, word: Ext(tag, pack(word)), st.sampled_from(TAGS), st.lists(inner, max_size=9) | inner
            ),
            st.builds(Ext, st.integers(-128, 127), st.binary(max_size=20)),
        ),
        max_leaves=20,
    )
