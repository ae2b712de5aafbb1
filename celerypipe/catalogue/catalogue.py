"""The catalogue: mark → node class. a dotted path, a built-in, an entry point, or a node in a plugin folder."""

from __future__ import annotations

import os
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import celerypipe.nodes
from celerypipe.catalogue.arguments import (
    Argument,
    arguments_of,
    complaints,
    complaints_from_schema,
    explanations,
    takes_anything,
)
from celerypipe.catalogue.called import called
from celerypipe.catalogue.code import code_of, meta_of
from celerypipe.catalogue.files import CodeFiles
from celerypipe.catalogue.here import place_of_mark, place_of_plugin
from celerypipe.catalogue.modules import failure, imported, leaves, no_class_named, nodes_in, object_at, without
from celerypipe.catalogue.outline import Outline, awaited, not_awaited, outline_of
from celerypipe.catalogue.plugin import Plugin, plugins_in
from celerypipe.catalogue.project import is_installed
from celerypipe.catalogue.told import default_digest
from celerypipe.catalogue.unimported import instead_of, outline_of_mark, outline_of_plugin
from celerypipe.contract.contract import MARK, Node, node_class, takes_batches, takes_snapshots
from celerypipe.contract.moving import is_only_here
from celerypipe.contract.reach import ANYWHERE, Reach
from celerypipe.errors import CelerypipeError, Complaint, ConfigError, UnknownMark, did_you_mean
from celerypipe.folders import distinct

__all__ = ["Argument", "Catalogue", "Listing", "complaints_from_schema"]

#: The entry point group in which an installed package names its nodes: ``mark = "package.module:Class"``.
GROUP = "celerypipe.nodes"
BUILT_IN = "built-in"
#: What docstrings put around names: ``code`` and :class:`Roles`.
MARKUP = re.compile(r":[a-z]+:`~?([^`]*)`|``([^`]*)``")


@dataclass(frozen=True, slots=True)
class Listing:
    """A node class, and how it came to be known.

    ``origin`` is ``built-in``, ``plugin <folder>``, ``entry point <distribution>`` or ``import``; ``defaults`` are a
    plugin's values for arguments. ``reach``: the files that nodes made of it may touch.
    """

    mark: str
    node: type[Node]
    origin: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    reach: Reach = ANYWHERE

    @property
    def type(self) -> str:
        """``source``, ``proc`` or ``sink``."""
        return self.node.type

    @property
    def open(self) -> bool:
        """True when it takes arguments of any name; a plugin whose config.toml lists arguments takes those alone."""
        return not self.defaults and takes_anything(self.node)

    @property
    def doc(self) -> str:
        """The first line of the class's own docstring, without its markup."""
        lines = (self.node.__dict__.get("__doc__") or "").strip().splitlines()
        return MARKUP.sub(r"\1\2", lines[0]) if lines else ""

    def meanings(self) -> dict[str, str]:
        """Return what its docstring says of its arguments, as far as it does, without markup."""
        return {name: MARKUP.sub(r"\1\2", text) for name, text in explanations(self.node).items()}

    @property
    def batches(self) -> bool:
        """True when it takes several messages at once: it has an ``update_batch``."""
        return takes_batches(self.node)

    def arguments(self) -> tuple[Argument, ...]:
        """Return what its configuration may say."""
        return arguments_of(self.node, self.defaults)

    def outline(self) -> Outline:
        """Return what there is to say of it before it runs."""
        return outline_of(self.mark, self.node, self.defaults)

    def complaints(self, configuration: Mapping[str, Any]) -> list[Complaint]:
        """Return what is wrong with its arguments: missing, unknown, of another type than is annotated."""
        return complaints(self.mark, self.arguments(), self.open, configuration)

    def schema(self) -> dict[str, Any]:
        """Return all that a machine without the class must know to check a configuration; JSON values only."""
        return {
            "mark": self.mark,
            "type": self.type,
            "stateful": self.node.stateful,
            "writable": self.node.writable,
            "snapshots": takes_snapshots(self.node),
            "batches": self.batches,
            "version": self.node.version,
            "code": code_of(self.node),
            "cache_meta": meta_of(self.node),
            "doc": self.doc,
            "arguments": [
                {**argument.to_dict(), "digest": "" if argument.required else default_digest(argument.default)}
                for argument in self.arguments()
            ],
            "open": self.open,
            "awaits": list(awaited(self.node)),
        }

    def create(self, configuration: Mapping[str, Any] | None, name: str = "", folder: Path | None = None) -> Node:
        """Make a node; :class:`ConfigError` names the mark and the argument, or what its constructor says.

        None: it is a function that is called. Values of the configuration are not repeated: they may be secrets.
        """
        if configuration is None:
            function = called(self.mark, self.node)
            function.name = name
            return function
        # What a variable says is a text where nobody knew the type, and many a node makes a number of it.
        found = [each.text for each in self.complaints(configuration) if not each.place]
        found += [f"{self.mark}: {text}" for text in not_awaited(awaited(self.node))]
        if found:
            raise ConfigError("\n".join(found))
        try:
            node = self.node(**{**self.defaults, **configuration})
        except CelerypipeError:
            raise
        except Exception as error:  # a constructor takes its arguments and nothing else, so they are what is wrong
            given = ", ".join(configuration) or "no arguments"
            who = f"{name}: {self.mark}" if name and name != self.mark else self.mark
            raise ConfigError(f"{who} cannot be made of {given}: {type(error).__name__}: {error}") from error
        node.name = name
        node.folder = folder
        node.reach = self.reach
        return node


class Catalogue:
    """All nodes that can be found from here. Short marks go by type, so a source and a sink may share one."""

    def __init__(self, plugins: Sequence[Path] = ()) -> None:
        self.plugins = distinct(plugins)
        self._loaded: dict[Plugin, Listing] = {}

    def find(self, mark: str, type: str | None = None) -> Listing:
        """Return the node of a mark.

        ``type`` chooses among nodes that share a short mark. :class:`UnknownMark` when nothing answers,
        :class:`ConfigError` for a module or plugin that does not import and for a mark that means two things.
        """
        if not MARK.fullmatch(mark):
            raise UnknownMark(f"{mark!r} is no mark; write a dotted path such as tasks.gpu.Detect, or a short name")
        if "." in mark:
            return _imported(mark)
        found = [*_built_in(mark), *self._plugged_in(mark, type), *self._installed(mark)]
        fitting = [listing for listing in found if type in (None, listing.type)]
        if not fitting:
            raise UnknownMark(self._unknown(mark, type, found))
        if len(fitting) > 1:
            raise _ambiguous(mark, fitting)
        return fitting[0]

    def listings(self, refused: list[ConfigError] | None = None) -> list[Listing]:
        """Return all nodes that have a short mark.

        What does not import is added to ``refused``; without one it is raised, except for a built-in, whose optional
        dependency may rightly be missing.
        """
        makers: list[tuple[Callable[[], Iterable[Listing]], bool]] = [
            *((lambda mark=mark: _built_in(mark), True) for mark in built_in_marks()),
            *((lambda plugin=plugin: [self._plugin(plugin)], False) for plugin in plugins_in(self.plugins)),
            *((lambda point=point: [_listing_of(point)], False) for point in self._points),
        ]
        found: dict[tuple[str, str], Listing] = {}
        for make, is_built_in in makers:
            try:
                for listing in make():
                    if (twin := found.setdefault((listing.type, listing.mark), listing)) is not listing:
                        raise _ambiguous(listing.mark, [twin, listing])
            except ConfigError as error:
                if refused is not None:
                    refused.append(error)
                elif not is_built_in:
                    raise
        return list(found.values())

    @staticmethod
    def of_module(module: ModuleType) -> list[Listing]:
        """Return the node classes and ``@node`` functions that a module defines, under their dotted marks."""
        return [Listing(f"{module.__name__}.{path}", node, "import") for path, node in nodes_in(module).items()]

    def plugin(self, mark: str, type: str) -> Plugin | None:
        """Return the plugin of a mark without importing it; None if no plugin folder has one."""
        return next((plugin for plugin in plugins_in(self.plugins) if (plugin.mark, plugin.kind) == (mark, type)), None)

    def outline(self, mark: str, type: str) -> Outline | None:
        """Return what its source says of a node, without importing it; None: that is not here, or not readable."""
        plugin = self.plugin(mark, type)
        if plugin is not None:
            return outline_of_plugin(plugin)
        paths = [point.value.replace(":", ".") for point in self._points if point.name == mark]
        found = outline_of_mark(mark if "." in mark else "".join(paths[:1]))
        return replace(found, mark=mark) if found is not None else None

    def code_files(self, mark: str, type: str) -> CodeFiles | None:
        """Return the files that a node's code comes from; None: it is built in or installed, or in no module."""
        if is_only_here(mark):
            return None
        plugin = self.plugin(mark, type)
        if plugin is not None:
            return CodeFiles(place_of_plugin(plugin), beside=plugin.home / "config.toml")
        paths = [point.value.replace(":", ".") for point in self._points if point.name == mark]
        place = place_of_mark(mark if "." in mark else "".join(paths[:1]))
        return CodeFiles(place) if place is not None and not is_installed(place.project.folder) else None

    def load_anew(self, nodes: Iterable[tuple[str, str]], files: Collection[Path]) -> None:
        """Import these files as they are now, and find the nodes, each a mark and a type, in what they are then.

        What that raises leaves all as it was.
        """
        loaded, self._loaded = self._loaded, {}
        try:
            with without(files):
                for mark, type in nodes:
                    self.find(mark, type)
        except BaseException:
            self._loaded = loaded
            raise

    def instead_of(self, mark: str) -> list[str] | None:
        """Return the marks that are here, if this one is not; None: it is here, or only workers have it."""
        if "." in mark:
            return instead_of(mark)
        return None if mark in (marks := self.marks()) else marks

    def marks(self) -> list[str]:
        """Return all short marks, without importing anything."""
        plugged_in = [plugin.mark for plugin in plugins_in(self.plugins)]
        return sorted({*built_in_marks(), *plugged_in, *(point.name for point in self._points)})

    @cached_property
    def _points(self) -> tuple[EntryPoint, ...]:
        return _points_of(tuple((path, _changed(path)) for path in sys.path))

    def _plugged_in(self, mark: str, type: str | None) -> Iterator[Listing]:
        for plugin in plugins_in(self.plugins):
            if plugin.mark == mark and type in (None, plugin.kind):
                yield self._plugin(plugin)

    def _installed(self, mark: str) -> list[Listing]:
        return [_listing_of(point) for point in self._points if point.name == mark]

    def _plugin(self, plugin: Plugin) -> Listing:
        if plugin not in self._loaded:
            node, defaults = plugin.node_class(), plugin.defaults()
            taken = arguments_of(node, {})
            for name in defaults:
                if not takes_anything(node) and name not in {argument.name for argument in taken}:
                    raise ConfigError(
                        f"{plugin.home / 'config.toml'}: [arguments] has {name!r}, which {node.__name__} does not take"
                        f"{did_you_mean(name, [argument.name for argument in taken])}"
                    )
            self._loaded[plugin] = Listing(plugin.mark, node, f"plugin {plugin.folder}", defaults)
        return self._loaded[plugin]

    def _unknown(self, mark: str, type: str | None, found: Sequence[Listing]) -> str:
        types = {listing.type for listing in found} | {p.kind for p in plugins_in(self.plugins) if p.mark == mark}
        if types:
            return f"{mark!r} is a {' and a '.join(sorted(types))}, not a {type}"
        cure = did_you_mean(mark, self.marks()) or "; `celerypipe nodes` lists what there is"
        return f"no {type or 'node'} answers to the mark {mark!r}{cure}"


def built_in_marks() -> list[str]:
    """Return the marks of the built-in nodes: the modules in :mod:`celerypipe.nodes`."""
    return [module.name for module in pkgutil.iter_modules(celerypipe.nodes.__path__) if not module.ispkg]


def _built_in(mark: str) -> list[Listing]:
    if mark not in built_in_marks():
        return []
    name = f"{celerypipe.nodes.__name__}.{mark}"
    module = imported(name, f"the module {name!r}")
    return [Listing(mark, node, BUILT_IN) for node in leaves(nodes_in(module))]


def _imported(mark: str) -> Listing:
    value = object_at(mark)
    node = node_class(value)
    if isinstance(value, ModuleType):
        raise no_class_named(value)
    if node is None or not node.type:
        what = "a class, but no Source, Proc or Sink" if isinstance(value, type) else "no node"
        cure = "put @node above the function" if callable(value) and not isinstance(value, type) else "inherit from one"
        raise ConfigError(f"{mark} is {what}; {cure}")
    return Listing(mark, node, "import")


@lru_cache(maxsize=4)
def _points_of(_places: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    """The nodes of installed packages: a file of each package is read for them, and every run asks."""
    return tuple(entry_points(group=GROUP))


def _changed(place: str) -> int:
    """When packages were last installed in a folder or removed from it."""
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


def _listing_of(point: EntryPoint) -> Listing:
    package = point.dist.name if point.dist else point.module
    try:
        node = node_class(point.load())
    except (Exception, SystemExit) as error:  # an installed module may raise anything; the user gets the line that did
        raise failure(f"the node {point.name!r} of the package {package!r}", error) from error
    if node is None or not node.type:
        raise ConfigError(f"the entry point {point.name!r} of the package {package!r} ({point.value}) is no node")
    return Listing(point.name, node, f"entry point {package}")


def _ambiguous(mark: str, listings: Sequence[Listing]) -> ConfigError:
    types = sorted({listing.type for listing in listings})
    if len(types) == len(listings):
        return ConfigError(f"{mark!r} is a {' and a '.join(types)}; say which type is meant")
    origins = " and by ".join(listing.origin for listing in listings)
    return ConfigError(f"the {types[0]} {mark!r} is provided by {origins}; rename one of them")
