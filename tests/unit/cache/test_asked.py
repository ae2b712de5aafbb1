"""What the cache is asked: exact by type, the same in every process, and secrets are not in it."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celerypipe import Array, Audio, Batch, Bytes, Image, Message, Object, Video, codec
from celerypipe.cache.asked import Asked, Asker
from celerypipe.cache.asker import asker_of
from celerypipe.catalogue.told import default_digest
from celerypipe.codec.digest import digest
from celerypipe.definition.parts import CacheDefinition
from celerypipe.errors import CodecError
from tests.unit.cache.questions import ASK, EXPECTED, fingerprint
from tests.unit.codec.equality import same

DIFFERENT: list[Any] = [
    1, 1.0, True, "1", b"1", bytearray(b"1"), None, 0, 0.0, -0.0, False, "", 1 + 0j, 2**70,
    float("nan"), np.array(0x7FF8000000000001, np.uint64).view(np.float64).item(), float("inf"),
    (1,), [1], {1}, frozenset({1}), {1: 1}, {"1": 1}, Object({"1": 1}), (), [], {}, Object(), set(), frozenset(),
    (1, 2), (2, 1), ((1,), 2), (1, (2,)), {"a": 1, "b": 2}, {"b": 2, "a": 1}, {1.0}, {True}, {(1,)}, {"1"},
    np.float32(1), np.float64(1), np.int64(1), np.str_("1"), np.bytes_(b"1"),
    np.ones(3, "f4"), np.ones(3, "f8"), np.ones(3, ">f4"), np.ones(3, "i4"), np.ones((3, 1), "f4"),
    np.ones((1, 3), "f4"),
    np.zeros((40, 30)), np.zeros((40, 30), order="F"), np.zeros((30, 40)), np.zeros(0), np.zeros((0, 2)), np.ones(()),
    Array(np.ones(3, "f4")), Audio(np.ones(3, "f4")), Image(np.ones(3, "f4")), Audio(np.ones(3, "f4"), 16000),
    Bytes(b"1"), Bytes(b"1" * 2000), b"1" * 2000, Video((Image(np.ones(3)),)), Video((Image(np.ones(3)),) * 2),
    Batch((Message(1),)), Batch((Message(1), Message(1))), Batch((Message(1, creator="a"),)), Batch((Message(1.0),)),
    datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1), datetime.timedelta(1), "\udc80", 2**63, -(2**63) - 1,
]  # fmt: skip


def test_what_differs_in_type_value_layout_or_class_is_another_question() -> None:
    assert len({fingerprint(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_what_is_the_same_value_is_the_same_question() -> None:
    pixels = np.arange(4000, dtype=np.uint16).reshape(40, 100)
    assert fingerprint(pixels) == fingerprint(pixels.copy()) == fingerprint(np.repeat(pixels, 2, 1)[:, ::2])
    assert fingerprint(np.asfortranarray(pixels)) == fingerprint(pixels.T.copy().T)
    numbers = [*range(100), *((n, str(n), b"x" * 1500) for n in range(50))]
    backwards = numbers[::-1]
    assert fingerprint({"deep": [set(numbers)]}) == fingerprint({"deep": [set(backwards)]})
    assert fingerprint(set(map(str, numbers))) == fingerprint(set(map(str, backwards)))
    one, other = Message([1], meta={"path": "a"}), Message([1], meta={"path": "b"})
    assert (one.id, one.created_at) != (other.id, other.created_at)
    assert ASK(one).fingerprint == ASK(other).fingerprint
    assert fingerprint(Batch((one, other))) == fingerprint(Batch((other, one)))


def test_each_part_counts() -> None:
    asked = ASK(Message(1))
    other = [
        dataclasses.replace(asked, mark="tasks.gpu.Other"),
        dataclasses.replace(asked, code="version 2"),
        dataclasses.replace(asked, input=digest(2)),
        dataclasses.replace(asked, meta={"language": digest("de")}),
        Asker("tasks.gpu.Detect", "version 1", {"threshold": np.float64(0.5)})(Message(1)),
        Asker("tasks.gpu.Detect", "version 1", {"threshold": 0.5, "size": None})(Message(1)),
        Asker("tasks.gpu.Detect", "version 1", {"size": 0.5})(Message(1)),
    ]
    assert len({each.fingerprint for each in (asked, *other)}) == 8
    assert asked.fingerprint.startswith("blake3-")
    assert len(asked.fingerprint) == len("blake3-") + 64


def test_only_declared_meta_counts_and_a_missing_key_is_not_none() -> None:
    ask = Asker("m", "version 1", {}, meta=("language", "speed"))
    bare, none, german = (
        ask(Message(1, meta=meta)) for meta in ({"path": "x"}, {"language": None}, {"path": "y", "language": "de"})
    )
    assert len({bare.fingerprint, none.fingerprint, german.fingerprint}) == 3
    assert ask(Message(1, meta={"language": "de", "path": "z"})).fingerprint == german.fingerprint
    batches = [Message(Batch((Message(1, meta={"language": language, "path": language}),))) for language in "ab"]
    assert ask(batches[0]).fingerprint != ask(batches[1]).fingerprint
    assert ASK(batches[0]).fingerprint == ASK(batches[1]).fingerprint


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(max_size=3) | st.floats() | st.tuples(st.booleans()), max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(VALUES, VALUES)
def test_equal_by_the_codec_is_equal_by_digest(one: Any, other: Any) -> None:
    assert digest(one) == digest(codec.decode_value(codec.encode_value(one)))
    assert (digest(one) == digest(other)) == same(one, other)
    assert digest([one, other]) != digest([[one], other])


def test_it_is_the_same_in_another_process_with_another_hash_seed() -> None:
    code = "from tests.unit.cache.questions import EXPECTED, fingerprint; import json;"
    code += "print(json.dumps(list(map(fingerprint, EXPECTED.values()))))"
    here = [fingerprint(value) for value in EXPECTED.values()]
    assert [found.removeprefix("blake3-")[:16] for found in here] == list(EXPECTED)
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        assert json.loads(there.stdout) == here


def test_an_asked_is_plain_values_and_comes_back() -> None:
    asked = Asker("m", "version 1", {"a": (1,), "b": "x" * 99}, meta=("k",))(Message(1, meta={"k": 2}))
    plain = json.loads(json.dumps(asked.to_dict()))
    assert Asked.from_dict(plain) == asked
    assert Asked.from_dict(plain).fingerprint == asked.fingerprint
    for wrong in (None, [], {}, {**plain, "mark": 5}, {**plain, "meta": {"k": 1}}, {**plain, "configuration": "x"}):
        with pytest.raises(CodecError, match="no question to the cache"):
            Asked.from_dict(wrong)


def test_a_payload_that_cannot_travel_is_named_with_its_place() -> None:
    with pytest.raises(CodecError, match=r"payload\['deep'\]\[0\]: .*SimpleNamespace"):
        ASK(Message({"deep": [SimpleNamespace()]}))
    with pytest.raises(CodecError, match=r"meta\['key'\]: .*SimpleNamespace"):
        Asker("m", "c", {}, meta=("key",))(Message(1, meta={"key": SimpleNamespace()}))
    with pytest.raises(CodecError, match=r"payload.*\.payload: .*SimpleNamespace"):
        ASK(Message(Batch((Message(SimpleNamespace()),))))


class Mode(enum.Enum):
    FAST = 1
    EXACT = 2


def test_a_configuration_is_shown_as_short_text_and_decides_by_its_digest() -> None:
    values = {"text": "hello", "long": "x" * 99, "pair": (1, 2.0), "array": np.ones(2), "scalar": np.float32(0.5)}
    asked = Asker("m", "c", {**values, "mode": Mode.FAST, "file": Path("/a/b")})(Message(1))
    shown = asked.configuration
    assert (shown["text"], shown["pair"], shown["scalar"]) == ("'hello'", "(1, 2.0)", "float32(0.5)")
    assert shown["long"] == f"blake3:{digest('x' * 99)}"
    assert shown["array"].startswith("blake3:")
    assert "FAST" in shown["mode"]
    assert "/a/b" in shown["file"]
    modes = {Asker("m", "c", {"mode": mode})(Message(1)).fingerprint for mode in (*Mode, 1, "FAST")}
    assert len(modes) == 4
    with pytest.raises(CodecError, match=r"the argument 'x'.*SimpleNamespace"):
        Asker("m", "c", {"x": SimpleNamespace()})


def test_a_value_of_the_environment_is_never_shown() -> None:
    written = {"token": "$JT_ENV_TOKEN", "nested": {"deep": ["$JT_ENV_TOKEN"]}, "plain": "p"}
    resolved = {"token": "s3cret", "nested": {"deep": ["s3cret"]}, "plain": "p"}
    ask, _ = asker_of("m", [schema()], resolved, CacheDefinition(), written=written)
    other, _ = asker_of("m", [schema()], {**resolved, "token": "another"}, CacheDefinition(), written=written)
    assert ask
    assert other
    asked = ask(Message(1))
    assert "s3cret" not in json.dumps(asked.to_dict())
    assert asked.configuration["plain"] == "'p'"
    assert asked.fingerprint != other(Message(1)).fingerprint


def schema(code: str = "version 1", meta: tuple[str, ...] = (), **defaults: Any) -> dict[str, Any]:
    arguments = [
        {"name": name, "required": False, "default": repr(value), "digest": default_digest(value)}
        for name, value in defaults.items()
    ]
    return {"mark": "m", "code": code, "cache_meta": list(meta), "arguments": arguments}


def asked(schemas: list[dict[str, Any]], policy: CacheDefinition | None = None, **given: Any) -> str:
    ask, why = asker_of("m", schemas, given, policy or CacheDefinition())
    return ask(Message(1, meta={"k": 1})).fingerprint if ask else why


def test_an_omitted_default_and_the_same_value_given_are_one_key() -> None:
    there = schema(threshold=0.5, shape=(2, 3), mode=Mode.FAST, what=SimpleNamespace())
    assert asked([there]) == asked([there], threshold=0.5, shape=(2, 3)) == asked([there], mode=Mode.FAST)
    assert asked([there]) != asked([there], threshold=0.6)
    assert asked([there]) != asked([there], shape=[2, 3])
    assert asked([there]) != asked([there], what=None)
    ask, _ = asker_of("m", [there], {}, CacheDefinition())
    assert ask
    shown = ask(Message(1)).configuration
    assert (shown["shape"], shown["what"]) == ("(2, 3)", "default")
    # A default that has no digest is equal to itself, in every process.
    assert asked([there]) == asked([schema(threshold=0.5, shape=(2, 3), mode=Mode.FAST, what=SimpleNamespace(b=1))])


def test_workers_with_different_code_or_none_answer_nothing_and_say_why() -> None:
    assert asked([schema(), schema()]).startswith("blake3-")
    assert "different code: version 1 and version 2" in asked([schema(), schema("version 2")])
    assert "declare one" in asked([schema(), schema("")])
    assert "declare one" in asked([{"mark": "m", "arguments": []}])
    assert "no live worker" in asked([])
    assert "differ in the arguments" in asked([schema(size=1), schema(size=2)])
    assert "differ in the arguments" in asked([schema(meta=("k",)), schema()])


def test_the_definition_may_say_version_and_meta() -> None:
    policy = CacheDefinition(version="7", meta=("k",))
    assert asked([schema(""), schema("source 12")], policy).startswith("blake3-")
    assert asked([schema("version 7", meta=("k",))]) == asked([schema("x")], policy)
    assert asked([schema("version 7")]) != asked([schema("x")], policy)
