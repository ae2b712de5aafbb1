"""Python's garbage collector, which stays out of the way while a process imports what it is made of."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def aside() -> Iterator[None]:
    """Let it look for garbage only after the block, and not at what is there by then, all of which stays.

    A fifth of the time of imports goes into looking at them again. For a process of our own: what a program has of its
    own is not ours to freeze.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
