"""What to say beside the error of a node that wrote, or had a library write, into what it was given."""

from __future__ import annotations

import dataclasses
import re

from celerypipe.message.message import Message

#: How it is mended.
CURE = (
    "the arrays that a node is given are read-only: write into a copy (array.copy()), or say writable = True in the "
    "class of the node, or @node(writable=True), and it is given copies"
)

#: How it is mended where it was a message that was to be changed.
CURE_OF_MESSAGE = (
    "a message cannot be changed: return another one, message.with_payload(...), or message.with_changes(...) for "
    "other fields"
)

#: What Python says then; objects of somebody else may have a field of that name, and be frozen too.
_FROZEN = {
    f"cannot {verb} field {field.name!r}" for field in dataclasses.fields(Message) for verb in ("assign to", "delete")
}

#: What numpy, Python's own buffers, Cython, numba and OpenCV say.
_SAID = re.compile(
    r"\b(?:array|destination|base|memory|buffer)\b.*\b(?:read-?only|not write?able)\b"
    r"|\bread-?only (?:array|memory|buffer)"
    r"|WRITEABLE flag|read-write bytes-like|contiguous, writable|Layout of the output array",
    re.DOTALL,
)


def cure_of(error: BaseException, *, writable: bool) -> str:
    """Return how a node mends an error, if it is that of a write; ``writable``: its arrays are its own."""
    if isinstance(error, dataclasses.FrozenInstanceError) and str(error) in _FROZEN:
        return CURE_OF_MESSAGE
    return CURE if not writable and is_refused_write(error) else ""


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
