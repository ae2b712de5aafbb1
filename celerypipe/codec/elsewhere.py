"""A payload that is not here: its word as it came, and where its bytes are. It goes on without having been read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Elsewhere:
    """Stands for a payload in a message that only passes by.

    ``word``: the payload as it is in the header; ``size``: that of the body it refers to; ``blob`` and ``lineage``
    are for whoever decoded the head: where the body is, and how to make it again.
    """

    word: bytes
    size: int
    blob: Any
    lineage: Any
