"""Plugin folders in juturna's layout: ``<folder>/nodes/<type>/_<mark>/<mark>.py`` beside ``config.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celerypipe.catalogue.modules import leaves, module_of_file, nodes_in
from celerypipe.contract.contract import Node
from celerypipe.contract.reach import Reach
from celerypipe.errors import ConfigError

TYPES = ("source", "proc", "sink")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One node in a plugin folder; nothing of it is imported before :meth:`node_class`.

    ``kind`` is the type of node that its place in the folder says.
    """

    folder: Path
    kind: str
    mark: str

    @property
    def home(self) -> Path:
        """The node's own folder."""
        return self.folder / "nodes" / self.kind / f"_{self.mark}"

    @property
    def requirements(self) -> Path | None:
        """Its ``requirements.txt``, if it has one."""
        file = self.home / "requirements.txt"
        return self._own(file) if file.is_file() else None

    @property
    def file(self) -> Path:
        """The file of its class."""
        return self._own(self.home / f"{self.mark}.py")

    def node_class(self) -> type[Node]:
        """Import its file and return the one node class in it, of the type that its folder says."""
        file = self.file
        found = leaves(nodes_in(module_of_file(file)))
        if len(found) != 1:
            names = ", ".join(node.__name__ for node in found) or "none"
            raise ConfigError(f"{file}: a plugin's file defines one node, this one defines {names}")
        if found[0].type != self.kind:
            raise ConfigError(
                f"{file}: {found[0].__name__} is a {found[0].type}; move its folder to "
                f"{self.folder / 'nodes' / found[0].type}"
            )
        return found[0]

    def defaults(self) -> dict[str, Any]:
        """Return the defaults of its arguments: ``[arguments]`` in ``config.toml``."""
        file = self._own(self.home / "config.toml")
        try:
            arguments = tomllib.loads(file.read_text(encoding="utf-8")).get("arguments", {})
        except FileNotFoundError:
            return {}
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: is not TOML: {error}") from None
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
        if not isinstance(arguments, dict):
            raise ConfigError(f"{file}: arguments must be a table; write [arguments] on a line of its own")
        return arguments

    def _own(self, file: Path) -> Path:
        """The file, unless a link leads out of the plugin folder: a folder that was handed over brings all it reads."""
        Reach.of([self.folder], "copy what the link leads to into the plugin folder").require(file)
        return file


def absence(folder: Path) -> str:
    """Say that a plugin folder is not there; nothing if it is. A pipeline may name one and need nothing of it."""
    return "" if folder.is_dir() else f"there is no folder {folder.absolute()}; no plugin is found there"


def plugins_in(folders: Iterable[Path]) -> Iterator[Plugin]:
    """Yield every node in the folders, in order; a folder that is not there has none."""
    for folder in folders:
        for kind in TYPES:
            for home in sorted(folder.glob(f"nodes/{kind}/_*/")):
                plugin = Plugin(folder, kind, home.name.removeprefix("_"))
                if (home / f"{plugin.mark}.py").is_file() and plugin.mark.isidentifier():
                    yield plugin
