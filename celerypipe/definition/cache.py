"""What a definition says about keeping results: ``"cache": true``, ``"1h"``, ``3600`` or an object."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema, model_serializer

from celerypipe.definition.shape import LONGEST, SECONDS, Flag, Seconds, Shape, fail, shown

#: Letters and the seconds that they stand for.
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_WORDS = {"s": "sec", "m": "min", "h": "hour hr", "d": "day", "w": "week"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SPOKEN = re.compile(r"(\d+(?:\.\d+)?)\s*([^\W\d_]*)\.?")
_DURATION_SCHEMA = {"type": "string", "pattern": r"^\d+(\.\d+)?[smhdw]$"}
_SECONDS_SCHEMA = {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST, **SECONDS}


def seconds_of(value: Any) -> Any:
    """Return a duration (``"90s"``, ``"15m"``, ``"1h"``, ``"1d"``, ``"2w"``) in seconds; else the value itself."""
    if not isinstance(value, str):
        return value
    found = _DURATION.fullmatch(value)
    if found is None:
        fail(f"{shown(value)} is no duration{_meant(value)}; write 90s, 15m, 1h, 1d or 2w, or seconds as a number")
    return float(found[1]) * UNITS[found[2]]


def _meant(value: str) -> str:
    spoken = _SPOKEN.fullmatch(value.strip().lower())
    if spoken is None:
        return ""
    if not spoken[2]:
        return f"; did you mean '{spoken[1]}s'?"
    words = {f"{word}{ending}": unit for unit, all_ in _WORDS.items() for word in all_.split() for ending in ("", "s")}
    words |= {"second": "s", "seconds": "s", "minute": "m", "minutes": "m"} | {unit: unit for unit in UNITS}
    unit = words.get(spoken[2])
    return f"; did you mean '{spoken[1]}{unit}'?" if unit else ""


def cache_of(value: Any) -> Any:
    """Return what stands for a cache in a definition as an object, or None where nothing is to be kept."""
    match value:
        case bool():
            return {} if value else None
        case str() | int() | float():
            seconds = seconds_of(value)
            if not 0 < seconds <= LONGEST:
                fail(f"must be more than 0 seconds and at most {LONGEST:g}, not {shown(value)}")
            return {"ttl": float(seconds)}
        case None | Mapping() | CacheDefinition():
            return value
    return fail(f'must be true, false, a duration such as "1h", or an object {{...}}, not {shown(value)}')


class CacheSchema:
    """All that may stand for a cache, for editors: the object alone is what a definition becomes."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        return {**schema, "anyOf": [{"type": "boolean"}, _SECONDS_SCHEMA, _DURATION_SCHEMA, *schema["anyOf"]]}


class CacheDefinition(Shape, init=False):
    """Which results of a node are kept, how long, and what they depend on besides code, configuration and input."""

    ttl: Annotated[
        Seconds | None,
        BeforeValidator(seconds_of),
        WithJsonSchema({"anyOf": [_SECONDS_SCHEMA, _DURATION_SCHEMA, {"type": "null"}]}),
    ] = Field(
        None,
        description="How long a result is valid: seconds, or 90s, 15m, 1h, 1d, 2w. Default: until it was not used for "
        "30 days.",
        examples=["1d"],
    )
    failures: Flag = Field(
        False, description="Keep failures too: the same input fails again without running.", examples=[True]
    )
    read_only: Flag = Field(False, description="Use results that are kept, and add none.", examples=[True])
    version: str = Field(
        "",
        description="The version of the node's code. Default: the version that its class declares, or else a digest of "
        "its source.",
        examples=["3"],
    )
    meta: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Keys of a message's meta that the result depends on.", examples=[["language"]]
    )

    @model_serializer(mode="wrap")
    def _as_written(self, written: Callable[[Any], dict[str, Any]]) -> Any:
        """``true`` and a number stay what they were."""
        content = written(self)
        if not content:
            return True
        return content["ttl"] if list(content) == ["ttl"] and self.ttl is not None else content
