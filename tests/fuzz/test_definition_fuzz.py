"""Definitions under fire: whatever a file says, it is a pipeline or a DefinitionError, and nothing else.

``CELERYPIPE_FUZZ_DEFINITIONS`` is the number of definitions; ``make fuzz`` tries a hundred thousand.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check.complaints import check, notes
from celerypipe.definition.graph import Graph
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import DefinitionError
from tests.fuzz.corpus import definitions, mutated

INPUTS = int(os.environ.get("CELERYPIPE_FUZZ_DEFINITIONS", "1500"))
CORPUS = definitions()
TREES = [json.loads(each) for each in CORPUS if each[:1] == b"{" and b"NaN" not in each]
#: Definitions that are made of each example of Hypothesis.
EACH = 10

ODD = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", " ", "a", "src", "far", "..", "a/b", "a\0b", "\ud800", "é" * 50, "x" * 5000, "$JT_ENV_", "$JT_ENV_NOTHING"),
    *("key:", "key:a", "within:", "within:x", "within:-1", "within:nan", "within:1e999", "zip", "latest", "1" * 5000),
    *("json_lines", "console", "passthrough_identity", "json_websocket", "data_streamer", "celerypipe", "a.b", "a..b"),
    *("source", "proc", "sink", "block", "drop", "none", "zstd", "local", "stop", "{}", "{name}", "%s", "../../etc"),
    *([], {}, [[]], [None], {"": ""}, {"a": {"b": {}}}, [1] * 100, {"name": "src"}, {"from": "src", "to": "far"}),
]
VALUES = st.recursive(
    st.sampled_from(ODD) | st.text(max_size=8) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)
seen: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def _figures() -> Iterator[None]:
    """``make fuzz`` shows what this prints."""
    yield
    print(f"\ndefinitions: {dict(seen)}")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("definitions") / "pipeline.json"


def looked_at(make: Any, catalogue: Catalogue) -> bool:
    """Do all with a definition that is done before it runs."""
    seen["definitions"] += 1
    try:
        pipeline: Pipeline | None = make()
    except DefinitionError as error:
        complaints = [str(complaint) for complaint in error.complaints]
        pipeline = None
    if pipeline is None:
        assert all(complaints)
        assert complaints
        seen["refused"] += 1
        return False
    seen["shaped"] += 1
    with mock.patch.dict(os.environ, {"OUT": "out.jsonl"}, clear=True):
        found = check(pipeline, catalogue, local=True)
    if not found:
        seen["fine"] += 1
        assert Graph.of(pipeline).order
    assert all(notes(pipeline, catalogue))
    again = pipeline.to_dict()
    assert Pipeline.from_dict(again, pipeline.root) == pipeline or _has_nan(again)
    return True


def _has_nan(value: Any) -> bool:
    return "nan" in repr(value)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Return every place in a tree: a container and a key."""
    found: list[tuple[Any, Any]] = []
    below = [tree]
    while below:
        one = below.pop()
        for key in list(one) if isinstance(one, dict) else range(len(one)):
            found.append((one, key))
            if isinstance(one[key], dict | list):
                below.append(one[key])
    return found


def harm(tree: Any, dice: random.Random, value: Any) -> None:
    """Do one kind of harm to a tree, in place."""
    known = places(tree)
    if not known:
        return
    one, key = dice.choice(known)
    other, other_key = dice.choice(known)
    match dice.randrange(6):
        case 0 | 1:
            one[key] = value
        case 2:
            del one[key]
        case 3:
            one[key] = json.loads(json.dumps(other[other_key]))
        case 4 if isinstance(one, list):
            one.append(json.loads(json.dumps(one[key])))
        case 4 | 5 if isinstance(one, dict):
            one[dice.choice([str(value)[:20], "name", "type", "mark", "timeout", "nam", "$schema", "from"])] = value


@settings(max_examples=INPUTS // EACH // 2 + 1, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(VALUES, min_size=1, max_size=3), st.integers(0, 2**32))
def test_whatever_hypothesis_writes_into_a_definition(catalogue: Catalogue, values: list[Any], seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311  # repeatable
    for _ in range(EACH - 1):
        tree = json.loads(json.dumps(dice.choice(TREES)))
        for value in values:
            harm(tree, dice, copy.deepcopy(value))  # else a later harm makes a circle of it
        looked_at(lambda tree=tree: Pipeline.from_dict(tree), catalogue)  # type: ignore[misc]
    looked_at(lambda: Pipeline.from_dict(values[0]), catalogue)


def test_whatever_becomes_of_a_file(catalogue: Catalogue, file: Path) -> None:
    for seed in range(INPUTS // 2):
        dice = random.Random(seed)  # noqa: S311  # repeatable: the seed is in the failure
        data = dice.choice(CORPUS)
        for _ in range(dice.randint(0, 3)):
            data = mutated(data, dice)
        file.write_bytes(data)
        try:
            looked_at(lambda: Pipeline.load(file), catalogue)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r} on {data!r}") from error
