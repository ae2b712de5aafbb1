"""What the codec costs: microseconds to encode and to decode one message, and bytes on the wire.

``python -m benchmarks.codec`` — best of several rounds each; ``memcpy`` is one copy of the same bytes, the least that
any encoding costs that ends in one piece.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from celerypipe import Image, Message, Object, codec

ROUNDS = 7
SECONDS = 0.05


def microseconds(call: Callable[[], Any]) -> float:
    """Return the time of one call, best of some rounds."""
    once = max(timeit.timeit(call, number=3) / 3, 1e-7)
    number = max(1, int(SECONDS / once))
    return min(timeit.repeat(call, number=number, repeat=ROUNDS)) / number * 1e6


def payloads() -> dict[str, Any]:
    """Return what is measured, by name."""
    dice = np.random.default_rng(0)
    detection = {"label": "face", "score": 0.93, "box": [12, 40, 96, 120]}
    return {
        "tiny dict (100 B)": {"text": "hello", "score": 0.93, "box": [1, 2, 3, 4], "n": 17, "ok": True},
        "tiny Object": Object(text="hello", score=0.93),
        "tuples and a datetime64": {
            "boxes": [(1, 2, 3, 4)] * 4,
            "at": np.datetime64("2026-01-01"),
            "p": np.float32(0.5),
        },
        "100 detections (5 KB)": [detection] * 100,
        "10,000 floats in a list": dice.random(10_000).tolist(),
        "array 64 KiB": dice.random(8192),
        "frame 640x480x3": Image(dice.integers(0, 255, (480, 640, 3), np.uint8), 640, 480, 3, "RGB"),
        "frame, strided": dice.integers(0, 255, (480, 640, 3), np.uint8)[:, ::-1],
        "array 16 MiB": dice.random(1 << 21),
    }


def main() -> None:
    """Measure each payload and print a line."""
    print(f"{'payload':26}{'bytes':>12}{'encode':>11}{'joined':>11}{'decode':>11}{'memcpy':>11}   µs")
    for name, payload in payloads().items():
        messages = [Message(payload, creator="detect", origin="6f2b9c01d3aa-17", sequence=17)]
        data = codec.encode_joined(messages)
        times = (
            microseconds(partial(codec.encode, messages)),
            microseconds(partial(codec.encode_joined, messages)),
            microseconds(partial(codec.decode, data)),
            microseconds(partial(bytearray, data)),
        )
        print(f"{name:26}{len(data):12,}" + "".join(f"{time:11,.2f}" for time in times))


if __name__ == "__main__":
    main()
