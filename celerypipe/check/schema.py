"""The JSON Schema of a definition with what each known node takes, for editors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celerypipe.catalogue.catalogue import Catalogue, Listing
from celerypipe.definition.pipeline import json_schema
from celerypipe.errors import ConfigError

#: Where an argument is no text, this text may stand for it.
VARIABLE = {
    "type": "string",
    "pattern": r"^\$JT_ENV_|\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}",
    # No description: editors would show it in place of the argument's.
    "$comment": "A variable of the environment: $JT_ENV_NAME, ${NAME} or ${NAME:-default}.",
}


def schema_with_nodes(catalogue: Catalogue, refused: list[ConfigError]) -> dict[str, Any]:
    """Return the JSON Schema of a definition; the configuration of a node with a short mark is that of its class.

    Other nodes take any. ``refused``: what does not import is added to it.
    """
    listings = sorted(catalogue.listings(refused), key=lambda listing: (listing.mark, listing.type))
    schema = json_schema()
    schema["$defs"]["Variable"] = VARIABLE
    node = schema["$defs"]["NodeDefinition"]
    # Editors complete an enum, and any other mark may be a dotted path or that of another plugin.
    node["properties"]["mark"] |= {"anyOf": [{"enum": _marks(listings)}, {"type": "string"}]}
    del node["properties"]["mark"]["type"]
    node["allOf"] = [_conditional(listing) for listing in listings]
    return schema


def _marks(listings: Sequence[Listing]) -> list[str]:
    return list(dict.fromkeys(listing.mark for listing in listings))


def _conditional(listing: Listing) -> dict[str, Any]:
    """What holds for a node of this type and mark."""
    configuration = _configuration(listing)
    known = {"type": {"const": listing.type}, "mark": {"const": listing.mark}}
    return {
        "if": {"properties": known, "required": list(known)},
        "then": {
            "properties": {"configuration": configuration},
            **({"required": ["configuration"]} if "required" in configuration else {}),
        },
    }


def _configuration(listing: Listing) -> dict[str, Any]:
    told = listing.meanings()
    arguments = listing.arguments()
    required = [argument.name for argument in arguments if argument.required]
    return {
        "description": listing.doc,
        "properties": {each.name: each.json_schema(told.get(each.name, "")) for each in arguments},
        **({"required": required} if required else {}),
        **({} if listing.open else {"additionalProperties": False}),
    }
