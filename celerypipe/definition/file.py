"""A definition file: JSON or YAML, read strictly."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

from celerypipe.definition.yaml import read_yaml
from celerypipe.errors import Complaint, DefinitionError
from celerypipe.redis.secret import hidden_in

#: The name of standard input.
STDIN = Path("-")
#: Files with these suffixes are YAML, others JSON.
YAML = (".yaml", ".yml")
#: What the name of a definition file ends with; any other name is read as JSON.
SUFFIXES = (".json", *YAML)


def read_definition(file: Path) -> Any:
    """Return what a definition file says; :class:`DefinitionError` names the file, and line and column if it can.

    ``-`` is standard input: JSON if it begins with a brace, else YAML.
    """
    language = "YAML" if file.suffix in YAML else "JSON"
    try:
        text = _content(file)
        if file == STDIN and not _begins_as_json(text):
            language = "YAML"
        if text.strip():
            return (
                read_yaml(text)
                if language == "YAML"
                else json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
            )
        problem = 'is empty; a definition is {"pipeline": {"name": ..., "nodes": [...], "links": [...]}}'
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        if not _begins_as_json(error.doc):
            problem += "; if it is YAML, give it a name that ends with .yaml"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start}); save it as UTF-8"
    except RecursionError:
        problem = "is nested too deeply to be a definition"
    except FileNotFoundError:
        problem = "there is no such file"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValueError as error:
        problem = f"is not {language}: {error}"
    except ImportError as error:
        problem = f"cannot be read: {error}"
    raise DefinitionError([Complaint("<stdin>" if file == STDIN else hidden_in(str(file)), problem)])


def _begins_as_json(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[")


def _content(file: Path) -> str:
    if file == STDIN and sys.stdin is None:  # ``celerypipe run - <&-``
        raise OSError(errno.EBADF, "standard input is closed")
    return (sys.stdin.buffer.read() if file == STDIN else file.read_bytes()).decode("utf-8-sig")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two equal keys JSON readers keep the last in silence; in a definition the other one was meant as well."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twin = next(key for key in keys if keys.count(key) > 1)
        where = f" (in the object with the name {found['name']!r})" if isinstance(found.get("name"), str) else ""
        raise ValueError(f"the key {twin!r} is written twice in one object{where}; remove one of them")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON; write a finite number")
