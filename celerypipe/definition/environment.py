"""Variables in a configuration, looked up when the node is made.

``$JT_ENV_NAME`` is juturna's, and stands for a whole text. ``${NAME}`` and ``${NAME:-default}`` may stand anywhere in
one; ``$${`` is a plain ``${``. That much is as in a shell; what else a shell takes there is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from celerypipe.errors import Complaint, DefinitionError

#: What a text in a configuration begins with when the rest is the name of a variable; juturna's own prefix.
PREFIX = "$JT_ENV_"
#: A variable within a text, with what stands in for it where it is not set or empty; a plain ``${``; or a mistake.
VARIABLE = re.compile(
    r"(?P<plain>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<otherwise>[^{}]*))?\}|(?P<wrong>\$\{)"
)
#: What is wrong with a text that has a mistake of that kind; it is not shown, for it may be a secret.
WRONG = (
    "'${' is followed by no variable; write ${NAME} or ${NAME:-default}, with no braces in the default, "
    "or '$${' for a plain '${'"
)
#: What is shorter stands in any sentence by chance.
SHORTEST_SECRET = 4
_SECRET = re.compile(r"pass|secret|token|key|auth|cred|header|cookie|sign|dsn", re.IGNORECASE)


def resolve_environment(
    configuration: Mapping[str, Any],
    environment: Mapping[str, str],
    place: str,
    kinds: Mapping[str, type | None],
    among: Collection[str],
) -> dict[str, Any]:
    """Return the configuration with each variable, however deep, replaced by its text.

    Looked into are the arguments ``among``, those of :func:`from_environment`; the others are returned as they are. An
    argument that is a bool, int or float by ``kinds`` receives the text as that type.
    Raises :class:`DefinitionError` with one complaint a variable that is missing or is no such number; ``place``
    says where the configuration stands. Values never appear in a complaint: they may be secrets.
    """
    complaints: list[Complaint] = []
    resolved = {
        key: _resolved(value, environment, f"{place}.{key}", kinds.get(key) or str, complaints)
        if key in among
        else value
        for key, value in configuration.items()
    }
    if complaints:
        raise DefinitionError(complaints)
    return resolved


def from_environment(configuration: Mapping[str, Any]) -> set[str]:
    """Return the arguments whose values, or parts of them, come from the environment; they may be secrets."""
    return {key for key, value in configuration.items() if _is_from_environment(value)}


def secrets_in(configuration: Mapping[str, Any], environment: Mapping[str, str], among: Collection[str]) -> set[str]:
    """Return the values of variables that are secrets by the name of the variable or of the argument, or as addresses.

    Others (a folder, the name of a model) may be what an error is about. ``among``: see :func:`resolve_environment`.
    """
    found = (text for name in among for text in _secrets(configuration[name], environment, name))
    return {text for text in found if len(text) >= SHORTEST_SECRET}


def _secrets(value: Any, environment: Mapping[str, str], name: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets(item, environment, f"{name} {key}")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets(item, environment, name)
    elif isinstance(value, str):
        for variable, otherwise in _variables(value):
            text = environment.get(variable) or otherwise or ""
            if _SECRET.search(f"{name} {variable}") or ("://" in text and "@" in text):
                yield text


def _variables(text: str) -> Iterator[tuple[str, str | None]]:
    """The names of the variables in a text, each with what stands in for it."""
    if text.startswith(PREFIX):
        yield text.removeprefix(PREFIX), None
        return
    for found in VARIABLE.finditer(text):
        if found["name"]:
            yield found["name"], found["otherwise"]


def _is_from_environment(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_from_environment, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_is_from_environment, value))
    return isinstance(value, str) and "$" in value and (value.startswith(PREFIX) or bool(VARIABLE.search(value)))


def _resolved(value: Any, environment: Mapping[str, str], place: str, kind: type, complaints: list[Complaint]) -> Any:
    if isinstance(value, Mapping):
        return {key: _resolved(item, environment, f"{place}.{key}", str, complaints) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_resolved(item, environment, f"{place}[{i}]", str, complaints) for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if not isinstance(value, str) or not _is_from_environment(value):
        return value
    if not value.startswith(PREFIX) and any(found["wrong"] for found in VARIABLE.finditer(value)):
        complaints.append(Complaint(place, WRONG))
        return value
    missing = [name for name, otherwise in _variables(value) if otherwise is None and name not in environment]
    if missing:
        complaints += [
            Complaint(place, f"the environment has no variable {name!r}; set it: export {name}=...") for name in missing
        ]
        return value
    text = _filled(value, environment)
    try:
        return _TYPES.get(kind, str)(text)
    except ValueError:
        names = " and ".join(repr(name) for name, _ in _variables(value))
        complaints.append(Complaint(place, f"the variable {names} is no {kind.__name__}; the argument needs one"))
        return value


def _filled(text: str, environment: Mapping[str, str]) -> str:
    """Return a text with the values of its variables; one that is empty takes its default, as in a shell."""
    if text.startswith(PREFIX):
        return environment[text.removeprefix(PREFIX)]

    def value(found: re.Match[str]) -> str:
        if found["plain"]:
            return "${"
        if found["otherwise"] is None:
            return environment[found["name"]]
        return environment.get(found["name"]) or found["otherwise"]

    return VARIABLE.sub(value, text)


def _flag(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no", ""):
        return False
    raise ValueError(text)


_TYPES: dict[type, Callable[[str], Any]] = {bool: _flag, int: int, float: float}
