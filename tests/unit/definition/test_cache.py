"""``cache`` in a definition and in ``@node``: what may stand there, what becomes of it, where it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from celerypipe import Message, node
from celerypipe.definition.parts import CacheDefinition
from celerypipe.definition.pipeline import NodeDefinition, Pipeline, json_schema
from celerypipe.errors import ConfigError
from celerypipe.settings import CacheSettings, Settings
from tests.unit.definition.sample import complaints, tutorial

OBJECT = {"ttl": "1h", "failures": True, "read_only": True, "version": "2", "meta": ["language"]}

FORMS: list[tuple[Any, CacheDefinition | None]] = [
    (True, CacheDefinition()),
    (False, None),
    (None, None),
    ("90s", CacheDefinition(ttl=90.0)),
    ("15m", CacheDefinition(ttl=900.0)),
    ("1h", CacheDefinition(ttl=3600.0)),
    ("1.5h", CacheDefinition(ttl=5400.0)),
    ("1d", CacheDefinition(ttl=86400.0)),
    ("2w", CacheDefinition(ttl=1209600.0)),
    (3600, CacheDefinition(ttl=3600.0)),
    (0.5, CacheDefinition(ttl=0.5)),
    ({}, CacheDefinition()),
    ({"ttl": None}, CacheDefinition()),
    ({"ttl": 60}, CacheDefinition(ttl=60.0)),
    (OBJECT, CacheDefinition(ttl=3600.0, failures=True, read_only=True, version="2", meta=("language",))),
]


@pytest.mark.parametrize(("written", "meant"), FORMS)
def test_every_form_means_a_policy_and_is_written_back(written: Any, meant: CacheDefinition | None) -> None:
    definition = tutorial(cache=written)
    pipeline = Pipeline.from_dict(definition)
    assert pipeline.nodes[1].cache == meant
    again = Pipeline.from_dict(json.loads(json.dumps(pipeline.to_dict())))
    assert again.nodes[1].cache == meant
    jsonschema.validate(definition, json_schema())
    jsonschema.validate(json.loads(json.dumps(pipeline.to_dict())), json_schema())


@pytest.mark.parametrize(
    ("wrong", "place", "text"),
    [
        ("1 hour", "", "'1h'"),
        ("90", "", "did you mean '90s'?"),
        ("5 min", "", "did you mean '5m'?"),
        ("2weeks", "", "did you mean '2w'?"),
        ("soon", "", "is no duration; write 90s, 15m"),
        ("0s", "", "more than 0 seconds"),
        (0, "", "more than 0 seconds"),
        (-5, "", "more than 0 seconds"),
        (float("nan"), "", "more than 0 seconds"),
        (1e12, "", "at most 4e+09"),
        ([], "", "must be true, false, a duration"),
        ({"ttl": "1 day"}, ".ttl", "did you mean '1d'?"),
        ({"ttl": 0}, ".ttl", "greater than 0"),
        ({"ttl": True}, ".ttl", "must be a number"),
        ({"failure": True}, ".failure", "did you mean 'failures'?"),
        ({"failures": 1}, ".failures", "true or false"),
        ({"version": 2}, ".version", "text in quotes"),
        ({"meta": "language"}, ".meta", "must be a list"),
        ({"meta": [""]}, ".meta[0]", "at least 1"),
    ],
)
def test_what_means_nothing_is_named_with_its_place_and_a_cure(wrong: Any, place: str, text: str) -> None:
    found = complaints(Pipeline.from_dict, tutorial(cache=wrong))
    assert list(found) == [f"pipeline.nodes[1].cache{place}"]
    assert text in found[f"pipeline.nodes[1].cache{place}"]


@node(queue="cpu", cache="1d", version="1")
def kept(message: Message) -> Message:
    return message


def test_the_cache_of_a_function_holds_wherever_it_runs_unless_the_definition_says_otherwise() -> None:
    def cache(**more: Any) -> CacheDefinition | None:
        return NodeDefinition(name="n", type="proc", mark=kept, **more).cache

    assert cache() == cache(warped=True) == cache(cache=None) == CacheDefinition(ttl=86400.0)
    assert cache(cache=False) is None
    assert cache(cache={"failures": True}) == CacheDefinition(failures=True)
    assert NodeDefinition(name="n", type="proc", mark=kept, warped=True).queue == "cpu"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("512MB", 512_000_000),
        ("2GiB", 2 * 1024**3),
        ("1.5 gib", 3 * 512 * 1024**2),
        ("64KiB", 65536),
        ("1T", 0),
    ],
)
def test_the_room_of_the_cache_is_a_number_of_bytes(text: str, size: int) -> None:
    environment = {"CELERYPIPE_CACHE_BYTES": text}
    if size:
        assert Settings.from_environment(environment).cache.bytes == size
        return
    with pytest.raises(ConfigError, match=r"CELERYPIPE_CACHE_BYTES: '1T' is no number of bytes; write 512MB"):
        Settings.from_environment(environment)


def test_the_cache_can_be_switched_off_and_has_a_place_of_its_own() -> None:
    assert Settings.from_environment({}).cache == CacheSettings(bytes=1024**3, url=None, enabled=True)
    assert not Settings.from_environment({"CELERYPIPE_CACHE": "no"}).cache.enabled
    assert not Settings.from_environment({}).cache.read_only
    assert Settings.from_environment({"CELERYPIPE_CACHE": "read-only"}).cache.read_only
    with pytest.raises(ConfigError, match="CELERYPIPE_CACHE: 'maybe' is neither yes nor no, nor read-only"):
        Settings.from_environment({"CELERYPIPE_CACHE": "maybe"})
    for url in ("file:///var/cache/x", "s3://bucket/folder", "redis://:secret@host:6379/3", "memory://x"):
        assert Settings.from_environment({"CELERYPIPE_CACHE_URL": url}).cache.url == url
    socket = Settings.from_environment({"CELERYPIPE_CACHE_URL": "redis+socket:///r.sock?virtual_host=2"}).cache
    assert socket.url == "unix:///r.sock?db=2"
    assert "secret" not in repr(CacheSettings(url="redis://:secret@host:6379/3"))
    for wrong, cure in (
        ("/var/cache/x", "file:///var/cache/x"),
        ("cache", "s3://bucket"),
        ("redis://:secret@host:6379/three", "a database is a number"),
        ("://:secret@x", "is no URL"),
    ):
        with pytest.raises(ConfigError) as refused:
            Settings.from_environment({"CELERYPIPE_CACHE_URL": wrong})
        assert str(refused.value).startswith("CELERYPIPE_CACHE_URL: ")
        assert cure in str(refused.value)
        assert "secret" not in str(refused.value)


def test_a_relative_place_of_the_cache_is_answered_with_the_whole_one() -> None:
    with pytest.raises(ConfigError, match=f"write file://{Path.cwd()}/kept"):
        Settings.from_environment({"CELERYPIPE_CACHE_URL": "./kept"})
