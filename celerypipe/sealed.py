"""A result that nobody here has opened: its bytes as they came, and the blob that they refer to."""

from __future__ import annotations

from dataclasses import dataclass

from celerypipe.blob import Blob


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Sealed:
    """Stands for the payload of a result. ``blob``: what of it lies apart; without ``data`` all of it does."""

    data: bytes
    blob: Blob | None = None
