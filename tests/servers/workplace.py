"""A folder of a test's own that a worker runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Writes a file below the test's folder.
Write = Callable[[str, str], Path]


@dataclass
class Workplace:
    """A folder with modules and ``worker_configs/`` of its own."""

    folder: Path

    def module(self, name: str, text: str) -> Path:
        """Write a module that workers started here can import."""
        path = self.folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if "." in name:  # a namespace package would lose against a package of that name further down the path
            (path.parent / "__init__.py").touch()
        return path

    def config(self, queue: str, text: str) -> Path:
        """Write ``worker_configs/<queue>.toml``."""
        path = self.folder / "worker_configs" / f"{queue}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path
