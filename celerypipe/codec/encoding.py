"""One encoding, as what is written and what is digested share it: the words, the header, the limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from celerypipe.codec.refusal import Refusal
from celerypipe.codec.tags import MAX_DEPTH, MAX_HEADER
from celerypipe.codec.writer import Writer, pack
from celerypipe.errors import CodecError

W = TypeVar("W", bound=Writer)


def encoding(content: Callable[[W], Any], make: Callable[[bool], W]) -> tuple[W, bytes]:
    """Return the writer that ``content`` was given, with its buffers, and the header of what came of it.

    ``make`` makes a writer; with True, a careful one.
    """
    try:
        try:
            writer = make(False)
            header = pack(content(writer))
        except (OverflowError, UnicodeEncodeError):
            # An int beyond 64 bits or a lone surrogate is in there: look at each int and str this time.
            writer = make(True)
            header = pack(content(writer))
    except Refusal as refusal:
        raise CodecError(str(refusal)) from None
    except RecursionError:
        raise CodecError(f"the payload is nested too deep here; {MAX_DEPTH} levels travel") from None
    except ValueError as error:  # msgspec: one str or extension beyond 4 GiB
        raise CodecError(f"the payload cannot be written: {error}; put large content into arrays or bytes") from None
    if len(header) > MAX_HEADER:
        raise CodecError(
            f"what is no array and no bytes is {len(header):,} bytes long here, and {MAX_HEADER:,} travel together; "
            "put large content into arrays or bytes: a long text as it.encode()"
        )
    return writer, header
