"""Parts of an entry: what is kept of outputs, how large bytes are cut, what a question takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celerypipe import codec
from celerypipe.cache.entry import CHUNK, TEXT_LIMIT, Bulk, Failure, opened, sealed
from celerypipe.cache.kept import kept, restored
from celerypipe.cache.seal import Seal
from celerypipe.message.message import Message
from celerypipe.message.payload import Object
from tests.runs.asking import asked

#: This machine may be busy.
SLOWLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
VALUES = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(width=16) | st.text(max_size=3) | st.tuples(st.just(1))
)
METAS = st.dictionaries(st.sampled_from("abcdef"), VALUES, max_size=5)


def through(outputs: list[Message], parent: Message, asks: Message) -> list[Message]:
    """Keep outputs of one input, and give them to whoever asks with another."""
    result = kept(outputs, parent)
    return restored(result.forms, codec.decode(result.head, result.body or None), asks) if outputs else []


def seen(message: Message) -> bytes:
    """What of an output counts, exactly; the order of its notes as well."""
    return codec.encode_value([message.payload, list(message.meta.items()), message.version])


@SLOWLY
@given(meta=METAS, own=METAS, version=st.integers(-1, 3), copies=st.booleans())
def test_for_the_same_input_the_outputs_are_the_same(
    meta: dict[str, Any], own: dict[str, Any], version: int, copies: bool
) -> None:
    parent = Message("in", meta, version=2)
    output = parent.with_payload("out").with_meta(**own) if copies else Message("out", own, version=version)
    [again] = through([output], parent, parent)
    if not copies:  # only the order of its notes may be another
        assert again.meta.keys() == own.keys()
        again = again.with_changes(meta={key: again.meta[key] for key in own})
    assert seen(again) == seen(output)


@SLOWLY
@given(meta=METAS, other=METAS, own=METAS)
def test_a_copy_of_the_input_is_a_copy_of_another_input(
    meta: dict[str, Any], other: dict[str, Any], own: dict[str, Any]
) -> None:
    parent, asks = Message("in", meta), Message("in", other)
    replaces = {key: value for key, value in own.items() if key not in meta}
    [again] = through([parent.with_payload("out").with_meta(**replaces)], parent, asks)
    assert seen(again) == seen(asks.with_payload("out").with_meta(**replaces))


def test_notes_are_compared_exactly() -> None:
    array = np.arange(3.0)
    parent = Message("in", {"n": 1, "z": 0.0, "box": array, "same": (1, 2)})
    asks = Message("in", {"n": 5, "z": 5, "box": 5, "same": 5})
    meta = {"n": 1.0, "z": -0.0, "box": array.astype(np.float32), "same": (1, 2)}
    [again] = through([Message("out", meta)], parent, asks)
    assert again.meta["same"] == 5
    assert (type(again.meta["n"]), str(again.meta["z"]), again.meta["box"].dtype) == (float, "-0.0", np.float32)


def test_a_frozen_meta_stays_frozen() -> None:
    [again] = through([Message("out", Object(a=1))], Message("in"), Message("in", {"b": 2}))
    assert type(again.meta) is Object
    assert again.meta == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("size", "chunks"), [(1, [1]), (CHUNK, [CHUNK]), (2 * CHUNK + 5, [CHUNK, CHUNK, 5])], ids=["one", "full", "three"]
)
def test_large_bytes_are_cut_below_what_redis_takes(size: int, chunks: list[int]) -> None:
    assert Bulk("0" * 64, size, False).chunks == chunks


def test_a_failure_is_kept_with_so_much_text_as_is_worth_it() -> None:
    failure = Failure("failed", "ValueError", "\ud800" + "x" * 2 * TEXT_LIMIT, "first" + "y" * 2 * TEXT_LIMIT + "last")
    entry = sealed(Seal(None), "f", asked().to_dict(), failure, 1.0, None)
    found = opened(Seal(None), "f", entry.data).head.failure
    assert found is not None
    assert found.text == "?" + "x" * (TEXT_LIMIT - 1)
    assert found.traceback.endswith("ylast")
    assert len(found.traceback) == TEXT_LIMIT
