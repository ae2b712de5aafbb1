"""A project of one's own: what it may be called, and its files."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path, PurePosixPath

from celerypipe.errors import ConfigError
from celerypipe.process.version import VERSION
from celerypipe.scaffold import template
from celerypipe.scaffold.example import EXAMPLES, GUIDE
from celerypipe.scaffold.naming import wrong_letters


def make(name: str, example: str, *, within: Path) -> Path:
    """Write a project into a new or empty folder of its name, and return that; :class:`ConfigError` if it cannot be."""
    check_place(name, within=within)
    template.write(within / name, project_files(name, example))
    return within / name


def check_place(name: str, *, within: Path) -> None:
    """Raise :class:`ConfigError` for a name that is none for a project, and for a folder that holds something."""
    if complaint := _wrong_name(name):
        raise ConfigError(complaint)
    if complaint := _wrong_folder(within / name):
        raise ConfigError(f"{within / name}: {complaint}; choose another name, or start in another folder")


def _wrong_name(name: str) -> str:
    """Say why a project cannot be called so, and what to do; nothing if it can."""
    if wrong := wrong_letters(name, "my-project"):
        return wrong
    if _plain(name) in _needed():
        return f"{name!r} is the name of a package that a project needs: pip would confuse them; choose another name"
    return ""


def project_files(name: str, example: str) -> dict[PurePosixPath, str]:
    """Return the files of a project; what is common to all comes before what an example adds to the same file."""
    chosen = EXAMPLES[example]
    needs = [f"celerypipe[{','.join(chosen.extras)}]>={VERSION}", *chosen.packages]
    changes = {
        **chosen.changes,
        **GUIDE,
        "{{name}}": name,
        "{{image}}": _plain(name),
        "{{about}}": chosen.about,
        "{{queue}}": chosen.queue,
        "{{dependencies}}": "\n".join(f'    "{need}",' for need in needs),
    }
    files = template.folder_text("common", changes)
    for path, content in template.folder_text(example, changes).items():
        files[path] = files.get(path, "") + content
    return files


def _wrong_folder(folder: Path) -> str:
    try:
        if folder.is_dir():
            return "the folder is not empty" if any(folder.iterdir()) else ""
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "there is a file of that name" if folder.exists() or folder.is_symlink() else ""


def _needed() -> set[str]:
    """celerypipe and the packages that it names, and those that install."""
    try:
        needs = importlib.metadata.requires("celerypipe") or []
    except importlib.metadata.PackageNotFoundError:  # it is imported from a folder, and was not installed
        needs = []
    return {_plain(re.split(r"[^\w.-]", each)[0]) for each in ["celerypipe", "pip", "setuptools", *needs]}


def _plain(name: str) -> str:
    """A name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
