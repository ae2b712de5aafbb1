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
    "d7bca0c8191949b4": None,
    "30163677eae0e4ed": (1, 2.5, "three", b"4", True),
    "3448a2e933b35fef": np.arange(1000, dtype="<f4").reshape(10, 100),
    "3c992f71be2785d3": {"a", "b", ("c", 1)},
    "c284ea037e48b374": Image(np.zeros((2, 3, 3), np.uint8), 3, 2, 3, "RGB"),
    "e36201bf9d36ab49": {"n": 2**80, "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)},
}


def fingerprint(payload: Any, **meta: Any) -> str:
    """Of the question for this payload."""
    return ASK(Message(payload, meta=meta)).fingerprint
