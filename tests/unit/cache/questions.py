"""Questions to the cache, and the digests that they have in every process."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from celerypipe import Image, Message
from celerypipe.cache.asked import Asker

ASK = Asker("tasks.gpu.Detect", "version 1", {"threshold": 0.5})

#: Written down once: another Python, numpy or msgspec finds the same, or all that is kept would be lost to it.
EXPECTED: dict[str, Any] = {
    "4dfdf70979fcaa9c": None,
    "89c6067b34643e02": (1, 2.5, "three", b"4", True),
    "b202e190d7527394": np.arange(1000, dtype="<f4").reshape(10, 100),
    "0700f6b023221345": {"a", "b", ("c", 1)},
    "a84ac4bfedfccc3f": Image(np.zeros((2, 3, 3), np.uint8), 3, 2, 3, "RGB"),
    "3522a2f0e5081827": {"n": 2**80, "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)},
}


def fingerprint(payload: Any, **meta: Any) -> str:
    """Of the question for this payload."""
    return ASK(Message(payload, meta=meta)).fingerprint
