"""A package that others would load if it is there, for what is not done here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def absent(package: str) -> Iterator[None]:
    """Inside the block, imports of it fail as if it were not installed; one that is loaded already is there."""
    modules: dict[str, Any] = sys.modules  # None in it has Python say so
    hidden = package not in modules
    if hidden:
        modules[package] = None
    try:
        yield
    finally:
        if hidden:
            del modules[package]
