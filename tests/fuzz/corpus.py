"""The corpus: inputs that once were interesting, each a file; what a fuzzer finds is added here, and stays.

``python -m tests.fuzz.corpus`` writes the encodings that the codec makes today beside those that are there; a file
that is there already is never written again, for it shows what was once on the wire.
"""

from __future__ import annotations

import datetime
import random
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np

from celerypipe import Array, Audio, Batch, Bytes, File, Image, Message, Object, Video, codec

CODEC = Path(__file__).parent / "corpus" / "codec"
DEFINITIONS = Path(__file__).parent / "corpus" / "definitions"

#: What has a meaning to msgpack, or to JSON.
BYTES = (0, 1, 0x7F, 0x80, 0xFF, 0xC1, 0xDD, 0xDF, *b'"\\{}[],:-')
#: Values that stand for themselves, and each kind of thing that the codec has a word for.
VALUES: dict[str, Any] = {
    "plain": {"text": "hello", "score": 0.5, "box": [1, 2, -3], "ok": None, "deep": [[[{}]]]},
    "arrays": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((2, 3), "i2")), np.zeros((0, 4)), np.array("t")],
    "records": np.zeros(3, [("a", "u1"), ("b", "<f4", (2,)), ("c", [("d", "S3")])]),
    "scalars": [np.float32(1), np.datetime64("2026-01-01"), np.str_("s"), np.bytes_(b"b"), np.bool_(True)],
    "numbers": [2**70, -(2**63), 2**64 - 1, 1j, float("nan"), 1e308],
    "containers": {(1, "a"): {2**70, "\ud800"}, b"k": frozenset({1j}), 1: (1, (2, ()))},
    "bytes": [b"x" * 2000, bytearray(b"abc"), b"small"],
    "moments": [
        datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Rome")),
        datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "z")),
        datetime.timedelta(1, 2, 3),
        datetime.date(2026, 2, 28),
    ],
    "payloads": [
        Batch((Message(Image(np.zeros((2, 2), "u1"))), Message(Audio(np.zeros(9, "i2"))), Message(Bytes(b"b")))),
        Video(np.zeros((1, 2, 2, 3), "u1")),
        Array(np.array(["a", "bc"])),
        Object(a=(1, 2)),
    ],
    "files": {"scan": File("0123456789abcdef" * 4, "scan.nii.gz", 1 << 33), "more": (File("f" * 64, "ü", 0),)},
}


def codec_inputs() -> list[bytes]:
    """Return all of the codec's corpus."""
    return [file.read_bytes() for file in sorted(CODEC.iterdir())]


def definitions() -> list[bytes]:
    """Return all definitions of the corpus, and the examples."""
    examples = Path(__file__).parents[2] / "examples"
    return [file.read_bytes() for file in [*sorted(DEFINITIONS.iterdir()), *sorted(examples.glob("*/pipeline.json"))]]


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Return bytes with one kind of harm done to them."""
    harmed = bytearray(data or b"\0")
    start = dice.randrange(len(harmed))
    match dice.randrange(6):
        case 0 | 1 | 2:
            for _ in range(dice.randint(1, 4)):
                harmed[dice.randrange(len(harmed))] = dice.choice(BYTES)
        case 3:
            del harmed[start : start + dice.randint(1, 9)]
        case 4:
            end = min(len(harmed), start + dice.randint(1, 64))
            place = dice.randrange(len(harmed))
            harmed[place:place] = harmed[start:end]
        case 5:
            harmed[start : start + 8] = dice.randbytes(8)
    return bytes(harmed)


def write() -> None:
    """Add today's encodings."""
    CODEC.mkdir(parents=True, exist_ok=True)
    for name, value in VALUES.items():
        for suffix, data in (
            ("value", codec.encode_value(value)),
            ("message", codec.encode_joined([Message(value, meta={"k": 1}, id=name, created_at=1.0)])),
        ):
            file = CODEC / f"{name}.v{codec.CODEC_VERSION}.{suffix}"
            if not file.exists():
                file.write_bytes(data)


if __name__ == "__main__":
    write()
