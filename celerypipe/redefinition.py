"""Two functions of one name in one module: the mark means the second, and results of the first would be taken for its.

Running the same lines again (a notebook's cell, ``importlib.reload``) makes no second function.
"""

from __future__ import annotations

import sys
import weakref
from types import CodeType, FunctionType

from celerypipe.errors import ConfigError

#: Function → its version, and the code that defined it: each execution of a module or a cell has code of its own.
_made: weakref.WeakKeyDictionary[FunctionType, tuple[str, weakref.ref[CodeType]]] = weakref.WeakKeyDictionary()


def refuse_twin(function: object, version: str) -> None:
    """Raise :class:`ConfigError` if the same execution of a module made a function of that name in another version."""
    if not isinstance(function, FunctionType) or "." in function.__qualname__:
        return
    running = _running(function)
    if running is None:
        return
    twin = function.__globals__.get(function.__name__)
    if isinstance(twin, FunctionType) and twin in _made:
        before, body = _made[twin]
        here, there = function.__code__.co_firstlineno, twin.__code__.co_firstlineno
        if body() is running and before != version and here != there:
            raise ConfigError(
                f"{function.__code__.co_filename}: {function.__name__} is defined twice, in line {there} as version "
                f"{before!r} and in line {here} as version {version!r}; give one of them another name"
            )
    _made[function] = (version, weakref.ref(running))


def _running(function: FunctionType) -> CodeType | None:
    """The code that defines a function right now."""
    frame = sys._getframe(1)
    while frame.f_globals is not function.__globals__:
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return frame.f_code
