"""A node to begin with, and its test: a module of ``tasks/``, or a folder of ``plugins/``."""

from __future__ import annotations

import json
import keyword
import re
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from celerypipe.definition.names import wrong_queue
from celerypipe.errors import ConfigError
from celerypipe.scaffold import template
from celerypipe.scaffold.naming import wrong_letters

#: Names that stubs use for something else.
TAKEN = frozenset({"Message", "Source", "Proc", "Sink", "Path", "Iterator"})
#: Where words of a name part: ``findFaces``, ``OCRText``, ``find-faces``.
PARTS = re.compile(r"[-_]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class Stub:
    """A node that is to be written: its name, its type, the queue that it is for, and whether it is a plugin.

    Raises :class:`ConfigError` for a name that cannot be that of a module and a class.
    """

    name: str
    type: str
    queue: str = ""
    is_plugin: bool = False

    def __post_init__(self) -> None:
        if complaint := self._complaint():
            raise ConfigError(complaint)

    @property
    def short(self) -> str:
        """Its name as that of a module: ``find_faces``."""
        return "_".join(PARTS.split(self.name)).lower()

    @property
    def class_name(self) -> str:
        """Its name as that of a class: ``FindFaces``."""
        return "".join(word[0].upper() + word[1:] for word in PARTS.split(self.name))

    def write(self, folder: Path) -> NewNode:
        """Write the node and its test below a folder; :class:`ConfigError` where one of these files is there."""
        path = self._path(folder)
        module = ".".join(path.with_suffix("").parts)
        mark = self.short if self.is_plugin else f"{module}.{self.class_name}"
        test = PurePosixPath("tests", f"test_{self.short}.py")
        changes = {
            "{{Class}}": self.class_name,
            "{{module}}": module,
            "{{name}}": self.short,
            "{{about}}": self._about(path),
            "{{imports}}": self._imports(),
        }
        head = template.text("stub/plugin.py" if self.is_plugin else "stub/task.py", changes)
        files = {
            path: template.text(f"stub/{self.type}/node.py", changes),
            test: head + template.text(f"stub/{self.type}/test.py", changes),
        }
        if self.is_plugin:
            files[path.with_name("config.toml")] = template.text(f"stub/{self.type}/config.toml", changes)
        faces = [PurePosixPath(each.parts[0], "__init__.py") for each in (path, test) if each.parts[0] != "plugins"]
        files |= {face: "" for face in faces if not (folder / face.parent).exists()}
        template.write(folder, files)
        return NewNode(sorted(files), test, self._definition(mark, path), self._hint(folder, path))

    def _complaint(self) -> str:
        if wrong := wrong_letters(self.name, "find-faces"):
            return wrong
        if keyword.iskeyword(self.short) or keyword.iskeyword(self.class_name) or self.class_name in TAKEN:
            return f"{self.name!r} means something else in Python or in celerypipe; choose another name"
        if self.class_name.startswith("Test"):
            return f"{self.name!r}: pytest takes the class {self.class_name} for tests; choose another name"
        if self.is_plugin and (find_spec(self.short) or find_spec(f"celerypipe.nodes.{self.short}")):
            return f"{self.name!r} is the name of a built-in node, or of an installed module; choose another name"
        if self.queue and self.type == "source":
            return "--queue: a source runs where its pipeline runs; leave it out"
        if self.queue and (wrong := wrong_queue(self.queue)):
            return f"--queue: {wrong}"
        return ""

    def _path(self, folder: Path) -> PurePosixPath:
        """Where its class goes: into the module of its queue, or where that is there, into one of its own."""
        if self.is_plugin:
            return PurePosixPath("plugins", "nodes", self.type, f"_{self.short}", f"{self.short}.py")
        of_queue = PurePosixPath("tasks", f"{self.queue}.py")
        is_module = self.queue.isidentifier() and not keyword.iskeyword(self.queue) and not self.queue.startswith("_")
        is_free = is_module and not (folder / of_queue).exists()
        return of_queue if is_free else PurePosixPath("tasks", f"{self.short}.py")

    def _about(self, path: PurePosixPath) -> str:
        if self.is_plugin:
            return f"``{self.short}``: say in one sentence what it does."
        if self.type == "source":
            return "A source; it runs where its pipeline runs."
        return f"Nodes for the queue ``{path.stem}``."

    def _imports(self) -> str:
        """What its test imports of Python's own."""
        needed = {
            "from importlib import import_module\n": self.is_plugin,
            "from pathlib import Path\n": self.type == "sink",
        }
        lines = [line for line, is_needed in needed.items() if is_needed]
        return "".join([*lines, "\n"]) if lines else ""

    def _definition(self, mark: str, path: PurePosixPath) -> str:
        """What a pipeline says of it."""
        node: dict[str, Any] = {"name": self.short, "type": self.type, "mark": mark}
        if self.queue or (self.type == "proc" and not self.is_plugin):
            node["warped"] = True
            node["warp_configuration"] = {"queue": self.queue or path.stem, "timeout": 60}
        return json.dumps(node)

    def _hint(self, folder: Path, path: PurePosixPath) -> str:
        """What lets a worker of its queue serve it, where that does not by itself."""
        if not self.queue or self.queue == path.stem:
            return ""
        file = f"worker_configs/{self.queue}.toml"
        if self.is_plugin:
            return f'plugins = ["plugins"] into {file}'
        imports = [*_imports_of(folder, self.queue), ".".join(path.with_suffix("").parts)]
        return f"imports = {json.dumps(imports)} into {file}"


def _imports_of(folder: Path, queue: str) -> list[str]:
    """What workers of a queue import now: what its file says, or where it has none the module of its name."""
    try:
        found = tomllib.loads((folder / "worker_configs" / f"{queue}.toml").read_text("utf-8")).get("imports")
    except FileNotFoundError:
        return [f"tasks.{queue}"] if (folder / "tasks" / f"{queue}.py").exists() else []
    except (OSError, ValueError):
        return []  # what is wrong with it is said by the worker
    return list(map(str, found)) if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class NewNode:
    """What was written, the test among it; what to write into a pipeline, and into the configuration of its queue."""

    files: list[PurePosixPath]
    test: PurePosixPath
    definition: str
    hint: str


def fits_plugins(folder: Path) -> bool:
    """Does a project keep its nodes in ``plugins/``, and not in ``tasks/``?"""
    return (folder / "plugins").is_dir() and not (folder / "tasks").is_dir()
