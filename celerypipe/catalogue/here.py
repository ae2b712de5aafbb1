"""Which code a node has by its source here: what :mod:`celerypipe.catalogue.code` says once that is imported.

Nothing is imported for it, since its packages need not be installed here. What cannot be read off the text is not
known: a class that is decorated, computes its version, or has a base neither in its file nor of celerypipe's contract.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from celerypipe.catalogue.code import Located, code_at
from celerypipe.catalogue.declaration import (
    ROOTS,
    Definition,
    definition_of_mark,
    definitions_in,
    file_of_mark,
    own_version,
)
from celerypipe.catalogue.plugin import Plugin
from celerypipe.catalogue.project import PLUGIN, Project, project_at
from celerypipe.catalogue.text import name_of


def code_of_mark(mark: str) -> str:
    """Return the code of a dotted mark, as its worker would tell it; empty: it is not here, or not known."""
    place, definition = file_of_mark(mark), definition_of_mark(mark)
    if place is None or definition is None:
        return ""
    file, name, path = place
    return _code(*definition, Located(file.absolute(), *project_at(name, file.absolute()), ".".join(path)))


def code_of_plugin(plugin: Plugin) -> str:
    """Return the code of the one node of a plugin; empty: it is not known."""
    file = (plugin.home / f"{plugin.mark}.py").resolve()
    definitions = definitions_in(file)
    found = [each for each in definitions if isinstance(each, ast.ClassDef) and each.name[0] != "_"]
    if len(found) != 1:
        return ""
    project = Project(file.parent, PLUGIN, is_folder=True)
    return _code(found[0], definitions, Located(file, project, f"{PLUGIN}.{file.stem}", found[0].name))


def _code(definition: Definition, others: Sequence[Definition], place: Located) -> str:
    version = own_version(definition)
    if version:
        return f"version {version}"
    return code_at(place) if version is not None and _is_read(definition, others) else ""


def _is_read(definition: Definition, others: Sequence[Definition]) -> bool:
    """Is the text all that it is made of, besides what it imports and celerypipe?"""
    if isinstance(definition, ast.FunctionDef):
        return [name_of(each) for each in definition.decorator_list] == ["node"]
    if definition.decorator_list or definition.keywords:
        return False
    for base in map(name_of, definition.bases):
        found = [each for each in others if each.name == base and each is not definition]
        if found:
            if len(found) > 1 or not _is_read(found[0], [each for each in others if each is not definition]):
                return False
        elif base not in ROOTS:
            return False
    return bool(definition.bases)
