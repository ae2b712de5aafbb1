"""What to say beside an error of a library that was to write into what a node was given."""

from __future__ import annotations

import re

#: How it is mended.
CURE = (
    "the arrays that a node is given are read-only: write into a copy (array.copy()), or say writable = True in the "
    "class of the node, or @node(writable=True), and it is given copies"
)

#: What numpy, Python's own buffers, Cython, numba and OpenCV say.
_SAID = re.compile(
    r"\b(?:array|destination|base|memory|buffer)\b.*\b(?:read-?only|not write?able)\b"
    r"|\bread-?only (?:array|memory|buffer)"
    r"|WRITEABLE flag|read-write bytes-like|contiguous, writable|Layout of the output array",
    re.DOTALL,
)


def is_refused_write(error: BaseException) -> bool:
    """Does an error say that memory is read-only?"""
    try:
        return not isinstance(error, OSError) and _SAID.search(str(error)) is not None
    except Exception:  # noqa: BLE001  # the text of an error is user code
        return False
