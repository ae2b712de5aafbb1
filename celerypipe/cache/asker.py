"""The asker of a node, made of what is known of its class: here, or by what its workers tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celerypipe.cache.asked import Asker
from celerypipe.catalogue.told import ALGORITHM, SHORT, UNTOLD, Told, told_of
from celerypipe.definition.environment import from_environment
from celerypipe.definition.parts import CacheDefinition
from celerypipe.errors import CodecError

#: One node class, as ``Entry.schema()`` has it and as its workers tell it.
Schema = Mapping[str, Any]

#: Ends a sentence about code that cannot be told.
DECLARE = 'declare one: version = "1" in the class, @node(version="1"), or "version" in its cache'


def asker_of(
    mark: str,
    schemas: Sequence[Schema],
    configuration: Mapping[str, Any],
    policy: CacheDefinition,
    *,
    written: Mapping[str, Any] | None = None,
) -> tuple[Asker | None, str]:
    """Return what asks for a node, or None and why nothing can be asked for it.

    ``schemas``: that of the class here, for a local node; what each live worker of the queue tells, for a warped one;
    without a worker, what is read from its source here. ``configuration``: resolved; ``written``: as it stands in the
    definition, which tells what came from the environment.
    """
    if not schemas:
        return None, "no live worker says which code it runs"
    code, why = _code(schemas, policy)
    if not code:
        return None, why
    secret = from_environment(written or {})
    try:
        defaults, meta = _defaults(schemas[0]), _meta(schemas[0])
        if any((_defaults(other), _meta(other)) != (defaults, meta) for other in schemas[1:]):
            return None, f"its workers differ in the arguments of {mark}; install the same code on all of them"
        return Asker(mark, code, {**defaults, **configuration}, secret=secret, meta=(*meta, *policy.meta)), ""
    except CodecError as error:
        return None, str(error)


def _code(schemas: Sequence[Schema], policy: CacheDefinition) -> tuple[str, str]:
    if policy.version:
        return f"version {policy.version}", ""
    codes = sorted({str(schema.get("code", "")) for schema in schemas})
    if len(codes) > 1 and codes[0]:
        brief = " and ".join(code[:15] for code in codes)
        return "", f"its workers run different code: {brief}; install the same code on all of them"
    if not codes[0]:
        return "", f"its code is not known: there is no source, or it was edited after it was imported; {DECLARE}"
    return codes[0], ""


def _meta(schema: Schema) -> tuple[str, ...]:
    found = schema.get("cache_meta", ())
    return tuple(sorted(map(str, found))) if isinstance(found, list | tuple) else ()


def _defaults(schema: Schema) -> dict[str, Told]:
    """The arguments that may be left out. A worker tells what JSON cannot say as text, and its digest beside it."""
    found = {}
    for argument in schema["arguments"]:
        if not argument["required"]:
            told = told_of(argument.get("default"))
            exact = str(argument.get("digest") or told.digest)
            text = told.text if exact == told.digest else _repr(argument.get("default"), exact)
            found[str(argument["name"])] = Told(exact, text)
    return found


def _repr(default: object, exact: str) -> str:
    """The text of a default that came as its ``repr``; one of an object says where it lay in memory."""
    short = isinstance(default, str) and len(default) <= SHORT and exact != UNTOLD
    return str(default) if short else exact if exact == UNTOLD else f"{ALGORITHM}:{exact}"
