"""What only this process has, in its script, notebook or prompt: where to write it so that a worker finds it too."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAIN = "__main__"
#: The module and queue that are proposed where nothing says which.
ANY = "work"


def is_only_here(mark: str) -> bool:
    """Is it a name in the script, notebook or prompt of a process, and in no module that others import?"""
    return mark.partition(".")[0] == MAIN


def how_to_move(name: str, queue: str = "", *, is_node: bool = True) -> str:
    """Say why no worker finds what ``__main__`` has under this name, and what to write instead.

    ``queue``: that it is to run on, if that is known. ``is_node``: it is one, and not yet to become one.
    """
    if not _is_there(name):
        started = Path(sys.argv[0])
        program = (started.parent if started.name == f"{MAIN}.py" else started).name
        program = program if program not in ("", "-", "-c") else "Python"
        cure = f"write the module that has {name}, such as tasks.{ANY}.{name}"
        return f"{MAIN} is whatever was started, here {program}, and has no {name}; {cure}"
    place = _place(queue if queue.isidentifier() else ANY)
    queue = queue or place.queue
    first = name.partition(".")[0]
    node = "" if is_node else " with @node above it"
    imported = f"from {place.module} import {first}"
    named = f" -I {place.module}" if place.is_unknown_to(queue) else ""
    worker = f"`celery -A celerypipe worker -Q {shlex.quote(queue)}{named}`"
    what, here = _what_was_started()
    if place.module in sys.modules and _script() is None:  # as it was: nobody starts this anew
        imported = f"import importlib, {place.module}; importlib.reload({place.module}); {imported}"
    if _is_ipython():
        first_line = f"%%writefile {'-a ' if place.file.exists() else ''}{_shown(place.file)}"
        made = "" if place.file.parent.is_dir() else f"make the folder (!mkdir {_shown(place.file.parent)}), "
        cure = f"{made}put it{node} and what it imports into a cell that begins with {first_line}, run that, and then "
        cure += f"`{imported}`"
    else:
        cure = f"move it{node} and what it imports to {_shown(place.file)}, and write `{imported}` in {here}"
    return f"it is in {what}, which no worker can import; {cure}; start the worker in {place.folder}: {worker}"


@dataclass(frozen=True, slots=True)
class _Place:
    """A file that this process and a worker that is started in ``folder`` import as ``module``."""

    folder: Path
    file: Path
    module: str

    @property
    def queue(self) -> str:
        """The queue of what is in there, if nothing else says which."""
        return self.module.rpartition(".")[2]

    def is_unknown_to(self, queue: str) -> bool:
        """Must a worker of this queue be told to import it? Else its own file does, or it is found by its name."""
        return self.module != f"tasks.{queue}" or (self.folder / "worker_configs" / f"{queue}.toml").exists()


def _place(name: str) -> _Place:
    """Beside what was started; but where a ``tasks`` is found already, another one would hide it, or be hidden."""
    first = sys.path[0] if _script() is not None else ""
    folder = Path(first).absolute()
    try:
        spec = importlib.util.find_spec("tasks")
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.submodule_search_locations is None and spec.origin:
        return _Place(Path(spec.origin).absolute().parent, Path(spec.origin), "tasks")
    if spec is not None and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations))).absolute().parent
    return _Place(folder, folder / "tasks" / f"{name}.py", f"tasks.{name}")


def _is_there(name: str) -> bool:
    found: Any = sys.modules[MAIN]
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None


def _is_ipython() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return shell is not None and shell() is not None


def _script() -> Path | None:
    if _is_ipython():
        return None
    file = Path(getattr(sys.modules[MAIN], "__file__", None) or os.devnull)
    return file if file.is_file() else None


def _what_was_started() -> tuple[str, str]:
    if _is_ipython():
        return "a notebook cell" if "ipykernel" in sys.modules else "IPython", "the next cell"
    script = _script()
    if script is not None:
        return f"the script that was started ({_shown(script)})", "the script"
    if sys.argv[:1] == ["-c"]:
        return "the text after python -c", "that text"
    return "what was typed into Python", "its place"


def _shown(file: Path) -> str:
    here = Path.cwd()
    return os.path.relpath(file, here) if file.absolute().is_relative_to(here) else str(file)
