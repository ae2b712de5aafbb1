"""Large bytes packed by whoever writes them and unpacked by whoever reads them, where a link is slower than a CPU.

A label says how they are packed: ``lz4:<size>`` with the size they had before, empty when they are plain. So a reader
needs no configuration, and a writer sends plain bytes wherever packing does not pay.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from celerypipe.codec import Content
from celerypipe.errors import CodecError, ConfigError

#: Packed bytes above this share of the plain ones are not worth the reader's time.
WORTH = 0.95
#: The most bytes that are packed at once or come out at once: what LZ4 takes in one block, a little less than 2 GiB.
LARGEST = 0x7E00_0000
#: LZ4 has no way to make more than 255 bytes of one.
_LZ4_MOST = 255
#: On a camera's frame level 1 takes a third of the time of level 3 and packs it to 84 % instead of 80 %.
_ZSTD_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Way:
    """One way to pack: the package on PyPI, its module, and two functions that are handed this module."""

    package: str
    module: str
    pack: Callable[[Any, Content], bytes]
    unpack: Callable[[Any, Content, int], bytes]

    def load(self) -> Any:
        """Import the module; :class:`ConfigError` with the cure where that cannot be."""
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise ConfigError(
                f"large payloads are compressed with the package {self.package}, which cannot be imported ({error}): "
                f"pip install {self.package}"
            ) from None


def pack(way: str, segments: Sequence[Content]) -> tuple[str, bytes]:
    """Return a label, and segments as one piece: packed as ``way`` says, or plain where that saves too little."""
    plain = segments[0] if len(segments) == 1 else b"".join(segments)
    if way != "none" and len(plain) <= LARGEST:
        chosen = WAYS[way]
        packed = chosen.pack(chosen.load(), plain)
        if len(packed) <= WORTH * len(plain):
            return f"{way}:{len(plain)}", packed
    return "", bytes(plain)


def unpack(label: str, content: Content) -> Content:
    """Return the plain bytes. A label and bytes that do not go together raise :class:`CodecError`.

    They cost no more memory than the label says, and never more than :data:`LARGEST`.
    """
    if not label:
        return content
    way, size = _read(label)
    chosen = WAYS[way]
    module = chosen.load()
    try:
        plain = chosen.unpack(module, content, size)
    except CodecError:
        raise
    except Exception as error:  # both packages have errors of their own, and memory may be short
        raise CodecError(f"{len(content)} bytes packed with {way} cannot be unpacked: {error}") from error
    if len(plain) != size:
        raise CodecError(f"{len(content)} bytes packed with {way} hold {len(plain)} bytes, not {size} as they say")
    return plain


def complaint(way: str) -> str:
    """What keeps this process from packing so; empty if nothing does."""
    try:
        if way in WAYS:
            WAYS[way].load()
    except ConfigError as error:
        return str(error)
    return ""


def plain_size(label: str, content: Content) -> int:
    """Return how many bytes come out of these."""
    return _read(label)[1] if label else len(content)


def _read(label: str) -> tuple[str, int]:
    way, _, size = label.partition(":")
    if way not in WAYS:
        raise CodecError(
            f"a payload is packed with {way[:20]!r}; this celerypipe knows {', '.join(WAYS)}: "
            "install the same celerypipe on both sides"
        )
    if not (size.isascii() and size.isdecimal() and len(size) <= len(str(LARGEST)) and int(size) <= LARGEST):
        raise CodecError(f"a packed payload says that it holds {size[:20]!r} bytes; at most {LARGEST} can be")
    return way, int(size)


def _unpack_lz4(lz4: Any, content: Content, size: int) -> bytes:
    if size > _LZ4_MOST * len(content):
        raise CodecError(f"{len(content)} bytes packed with lz4 cannot hold {size}")
    plain: bytes = lz4.decompress(content, uncompressed_size=size)
    return plain


def _unpack_zstd(zstandard: Any, content: Content, size: int) -> bytes:
    # A frame says its size too, and that is what would be allocated.
    found = zstandard.get_frame_parameters(content).content_size
    if found != size:
        raise CodecError(f"{len(content)} bytes packed with zstd say that they hold {found} bytes, their label {size}")
    plain: bytes = zstandard.ZstdDecompressor().decompress(content, max_output_size=size, allow_extra_data=False)
    return plain


#: What ``warp_configuration.compression`` may say besides ``none``.
WAYS = {
    "lz4": Way("lz4", "lz4.block", lambda lz4, plain: lz4.compress(plain, store_size=False), _unpack_lz4),
    "zstd": Way(
        "zstandard", "zstandard", lambda zstd, plain: zstd.ZstdCompressor(_ZSTD_LEVEL).compress(plain), _unpack_zstd
    ),
}


def installed() -> list[str]:
    """The ways whose packages are installed here; none of them is imported for that."""
    return [way for way, chosen in WAYS.items() if importlib.util.find_spec(chosen.module.partition(".")[0])]
