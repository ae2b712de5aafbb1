"""The numbers on the wire for what msgpack has no word for, and the limits of the codec.

A number is never given another meaning; a new one, or a change to what follows one, is a new ``CODEC_VERSION``.
Beside each: what its extension holds, itself in msgpack where it is a list.
"""

from __future__ import annotations

from celerypipe.message.payload import Array, Audio, Batch, Bytes, Image, Video

TUPLE = 1  # [items]
SET = 2  # [items]
FROZENSET = 3  # [items]
PAIRS = 4  # [key, value, key, value, …]: a dict with a key that is no str, int, float, bool or None
OBJECT = 5  # the dict of an Object
MESSAGE = 6  # [the nine fields of a Message]
AUDIO = 7  # [fields], as do the other payload classes
IMAGE = 8
VIDEO = 9
BYTES = 10
ARRAY = 11
BATCH = 12
FILE = 13  # [digest, name, size]

INTEGER = 20  # an int beyond 64 bits: two's complement, little-endian
TEXT = 21  # a str with lone surrogates: UTF-8 with "surrogatepass"
COMPLEX = 22  # two doubles, little-endian
BUFFER = 23  # [offset, length] of bytes among the buffers
BYTEARRAY = 24  # [offset, length]
NDARRAY = 25  # [dtype, Fortran order?, offset, shape…]
SCALAR = 26  # [dtype, content] of a numpy scalar
NUMPY_STR = 27  # the str in a numpy.str_ (as a scalar of dtype U it would lose NULs at its end)
NUMPY_BYTES = 28  # the bytes in a numpy.bytes_

DATE = 30  # [year, month, day]
TIME = 31  # [hour, minute, second, microsecond, zone, fold]
DATETIME = 32  # [year, month, day, hour, minute, second, microsecond, zone, fold]
TIMEDELTA = 33  # [days, seconds, microseconds]
TIMEZONE = 34  # [days, seconds, microseconds, name?] of a fixed offset
ZONE = 35  # the key of a ZoneInfo

#: Payload classes, each with its number and its fields in the order of its ``__init__``.
PAYLOADS: dict[type, tuple[int, tuple[str, ...]]] = {
    Audio: (AUDIO, ("audio", "sampling_rate", "audio_format", "channels", "start", "end")),
    Image: (IMAGE, ("image", "width", "height", "depth", "pixel_format", "timestamp")),
    Video: (VIDEO, ("video", "frames_per_second", "codec", "start", "end")),
    Bytes: (BYTES, ("cnt",)),
    Array: (ARRAY, ("array",)),
    Batch: (BATCH, ("messages",)),
}

#: Containers inside containers. Far above what a payload needs, far below what the C stack bears.
MAX_DEPTH = 64
#: The longest int, in bytes: 300,000 digits.
MAX_INTEGER = 131072
#: The longest header. What it makes in memory may be seventy times as large: an empty dict is one byte in there.
MAX_HEADER = 64 * 1024 * 1024
#: Arrays, large bytes and messages in one encoding: each is an object here, and only a few bytes there.
MAX_PARTS = 1 << 18
#: Each buffer begins on a multiple of this, so that numpy and SIMD code read it at full speed.
ALIGNMENT = 16
