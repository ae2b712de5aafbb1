"""Python source as a tree, also where several threads read some at the same time.

CPython 3.11 counts how deep it is in a tree for all threads together, and raises SystemError where two of them meet:
https://github.com/python/cpython/issues/106905
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

#: How often two threads may meet over one text.
MEETINGS = 100
Tree = TypeVar("Tree")


def statements(source: str | bytes) -> list[ast.stmt]:
    """Return the statements of a module. Raises what :func:`ast.parse` raises."""
    return _undisturbed(lambda: ast.parse(source)).body


def statements_of(file: Path) -> list[ast.stmt]:
    """Return the statements of a file; none of one that cannot be read: who imports it says what is wrong with it."""
    try:
        return _of_file(file, file.stat().st_mtime_ns)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []


@functools.lru_cache(maxsize=64)
def _of_file(file: Path, _changed: int) -> list[ast.stmt]:
    """A service starts the same pipeline again and again, and parsing takes milliseconds."""
    return statements(file.read_bytes())


def expression(text: str) -> ast.expr:
    """Return an expression. Raises what :func:`ast.parse` raises."""
    return _undisturbed(lambda: ast.parse(text, mode="eval")).body


def _undisturbed(read: Callable[[], Tree]) -> Tree:
    for _ in range(MEETINGS):
        try:
            return read()
        except SystemError:  # no lock against that: a fork could inherit it held, and not all who read are of ours
            continue
    return read()
