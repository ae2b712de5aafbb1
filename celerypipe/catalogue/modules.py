"""Modules that hold nodes, by name or by file; one that does not import is a ConfigError that names file and cause."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from celerypipe.contract.contract import Node, node_class
from celerypipe.contract.moving import MAIN, how_to_move
from celerypipe.errors import ConfigError, UnknownMark, did_you_mean

#: What to do about a module that is not there.
_CURE = "start in the folder that holds it, or install its package"


def object_at(path: str) -> object:
    """Return what a dotted path leads to: a module, then attributes. :class:`UnknownMark` says where the path ends."""
    for name, rest in splits(path):
        module = _module_or_none(name)
        if module is not None:
            return _attribute(module, rest, path)
    raise _absence(path)


def require_top(path: str) -> None:
    """Raise :class:`UnknownMark` if a process that starts in this folder does not find where a dotted path begins.

    Nothing is imported.
    """
    top = path.partition(".")[0]
    with suppress(ValueError):  # a module that was made by hand
        if importlib.util.find_spec(top) is None and PathFinder.find_spec(top, [os.getcwd()]) is None:
            raise _absence(path)


def _absence(path: str) -> UnknownMark:
    top = path.partition(".")[0]
    return UnknownMark(f"{path}: there is no module {top!r} here{did_you_mean(top, tops_here())}; {_CURE}")


def tops_here() -> list[str]:
    """Return the names of the modules and packages that lie in the current folder."""
    here = Path.cwd()
    return sorted({file.stem for file in here.glob("*.py")} | {file.parent.name for file in here.glob("*/*.py")})


def no_class_named(module: ModuleType) -> UnknownMark:
    """Return what is wrong with a mark that is the name of a module."""
    known = ", ".join(f"{module.__name__}.{node}" for node in nodes_in(module)) or "it has no nodes"
    return UnknownMark(f"{module.__name__} is a module; a mark ends with the name of a node in it: {known}")


def splits(path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield a dotted path as a module and what is looked up in it, the longest module first; it may be any of them."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:length]), parts[length:]


def imported(name: str, what: str) -> ModuleType:
    """Import a module; whatever goes wrong in it is a :class:`ConfigError`, which calls it ``what``."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a module may raise anything; the user gets the line that did
        raise failure(what, error) from error


def module_of_file(file: Path) -> ModuleType:
    """Import a file as a module that may import its neighbours (``from .words import WORDS``).

    It is known under a name of its own, so that equally named files of several plugin folders stay apart.
    """
    package = f"celerypipe_plugin_{hashlib.sha256(str(file.resolve().parent).encode()).hexdigest()[:12]}"
    if package not in sys.modules:
        parent = ModuleType(package, f"The folder {file.parent}.")
        parent.__path__ = [str(file.resolve().parent)]
        sys.modules[package] = parent
    importlib.invalidate_caches()  # the file may be younger than what Python remembers of its folder
    return imported(f"{package}.{file.stem}", str(file))


@contextmanager
def without(files: Collection[Path]) -> Iterator[None]:
    """Forget the modules of these files for the length of a block, which imports them as they are now.

    What the block raises leaves the modules as they were.
    """
    real = {os.path.realpath(file) for file in files}
    gone = {
        name: module
        for name, module in list(sys.modules.items())
        if name != "__main__" and os.path.realpath(getattr(module, "__file__", None) or os.devnull) in real
    }
    forget_bytecode(files)
    for name, module in gone.items():
        del sys.modules[name]
        above, _, own = name.rpartition(".")
        if getattr(sys.modules.get(above), own, None) is module:
            delattr(sys.modules[above], own)  # else one whose file is gone would be found there
    try:
        importlib.invalidate_caches()
        yield
    except BaseException:
        for name, module in gone.items():
            sys.modules[name] = module
            above, _, own = name.rpartition(".")
            if above in sys.modules:
                setattr(sys.modules[above], own, module)
        raise


def forget_bytecode(files: Iterable[Path]) -> None:
    """Remove what Python compiled of files: it takes two edits of one second and one size for the same."""
    for file in files:
        with suppress(OSError, NotImplementedError):
            Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)


def failure(what: str, error: BaseException) -> ConfigError:
    """Return an import's failure in one line: what was imported, the file and line that broke, the last line."""
    lines = traceback.format_exception_only(error)
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}: "
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_foreign(frame.filename)]
        where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    if where.startswith(f"{what}:"):
        where = f"line {where[len(what) + 1 :]}"
    return ConfigError(f"{what} does not import: {where}{lines[-1].strip()}{_cure_of_import(error, own=not where)}")


def _cure_of_import(error: BaseException, *, own: bool) -> str:
    """``own``: it is the module itself that is not there, and not one that it imports."""
    if not isinstance(error, ModuleNotFoundError):
        return ""
    if own or not error.name:
        return _shadow(error.name or "") or f"; {_CURE}"
    top = error.name.partition(".")[0]
    return f"; install the package that has {top!r} into {sys.prefix}, or start in the folder that holds it"


def _shadow(name: str) -> str:
    """Say that a package of this folder is not found for another one of its name, which wins: it has an __init__.py."""
    top, _, rest = name.partition(".")
    here, file = Path.cwd() / top, getattr(sys.modules.get(top), "__file__", None)
    own = here.joinpath(*rest.split("."))
    init = here / "__init__.py"
    if file is None or init.exists() or not (own.is_dir() or own.with_suffix(".py").is_file()):
        return ""
    return f"; {top!r} is found in {Path(file).parent}, which comes before a folder without __init__.py: write {init}"


def nodes_in(module: ModuleType) -> dict[str, type[Node]]:
    """Return the node classes and ``@node`` functions that a module defines, by their path inside it.

    What it merely imports is not its own; what begins with an underscore is private.
    """
    return dict(_nodes_in(vars(module), module.__name__, ""))


def leaves(nodes: Mapping[str, type[Node]]) -> list[type[Node]]:
    """Return the classes that no other one of them inherits from: the nodes, without their shared parents."""
    classes = list(nodes.values())
    return [one for one in classes if not any(issubclass(other, one) and other is not one for other in classes)]


def _nodes_in(names: Mapping[str, object], module: str, prefix: str) -> Iterator[tuple[str, type[Node]]]:
    for name, value in list(names.items()):
        if name.startswith("_"):
            continue
        found = node_class(value)
        if found is not None and found.type and (found.__module__, found.__qualname__) == (module, prefix + name):
            yield prefix + name, found
        if isinstance(value, type) and (value.__module__, value.__qualname__) == (module, prefix + name):
            yield from _nodes_in(vars(value), module, f"{prefix}{name}.")


def _module_or_none(name: str) -> ModuleType | None:
    """The module, or None when there is none of that name; one that is there and breaks raises."""
    try:
        return imported(name, f"the module {name!r}")
    except ConfigError as error:
        absent = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if absent is not None and f"{name}.".startswith(f"{absent}."):
            return None
        raise


def _attribute(module: ModuleType, names: list[str], path: str) -> object:
    value: object = module
    for name in names:
        try:
            value = getattr(value, name)
        except AttributeError:
            if len(names) == 1 and (inner := _module_or_none(path)) is not None:
                raise no_class_named(inner) from None
            known = [f"{module.__name__}.{node}" for node in nodes_in(module)]
            if module.__name__ == MAIN and not known:
                raise UnknownMark(f"{path}: {how_to_move('.'.join(names))}") from None
            listed = f"; it has {', '.join(known)}" if known else "; it has no nodes"
            cure = _shadow(f"{module.__name__}.{names[0]}") or did_you_mean(path, known) or listed
            raise UnknownMark(f"{path}: the module {module.__name__!r} has no {'.'.join(names)!r}{cure}") from None
    return value


def _is_foreign(file: str) -> bool:
    """True for a frame of user code: neither the import machinery nor this file."""
    return not file.startswith("<frozen") and file not in (__file__, importlib.__file__)
