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
    """Does an error say that memory is read-only, or one that it was raised for?"""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        if _says_so(found):
            return True
        seen.append(found)
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return False


def _says_so(error: BaseException) -> bool:
    try:
        return not isinstance(error, OSError) and _SAID.search(str(error)) is not None
    except Exception:  # noqa: BLE001  # the text of an error is user code
        return False
