"""Templates: files whose names end in ``-tpl``, so that no tool takes them for modules.

Some are links to the sources of the examples; a wheel has those as files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from celerypipe.errors import ConfigError

TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = "-tpl"


def folder_text(name: str, changes: Mapping[str, str]) -> dict[PurePosixPath, str]:
    """Return the files that a folder of templates makes: their paths below it, and their texts."""
    home = TEMPLATES / name
    paths = {file: file.relative_to(home).as_posix().removesuffix(SUFFIX) for file in sorted(home.rglob(f"*{SUFFIX}"))}
    if not paths:
        raise ConfigError(f"{home}: there are no templates; install celerypipe again")
    return {PurePosixPath(_changed(path, changes)): _filled(file, changes) for file, path in paths.items()}


def text(name: str, changes: Mapping[str, str]) -> str:
    """Return what one template makes."""
    return _filled(TEMPLATES / f"{name}{SUFFIX}", changes)


def write(folder: Path, files: Mapping[PurePosixPath, str]) -> None:
    """Write files below a folder; :class:`ConfigError` where one is there already, and then nothing is written."""
    if there := [str(path) for path in files if (folder / path).exists() or (folder / path).is_symlink()]:
        raise ConfigError(
            f"{', '.join(there)}: there already; nothing was written. Move it away, or choose another name"
        )
    made: list[Path] = []
    for path, content in files.items():
        try:
            _make_folder((folder / path).parent, made)
            with (folder / path).open("x", encoding="utf-8") as file:
                made.append(folder / path)
                file.write(content)
        except OSError as error:
            _take_back(made)
            raise ConfigError(f"{folder / path}: cannot be written: {error.strerror}; nothing was made") from None


def _make_folder(folder: Path, made: list[Path]) -> None:
    if not folder.exists():
        _make_folder(folder.parent, made)
        folder.mkdir()
        made.append(folder)


def _take_back(made: list[Path]) -> None:
    for each in reversed(made):
        with contextlib.suppress(OSError):  # what is left is less than the error that made it so
            if each.is_dir():
                each.rmdir()
            else:
                each.unlink()


def _filled(file: Path, changes: Mapping[str, str]) -> str:
    try:
        return _changed(file.read_text(encoding="utf-8"), changes)
    except FileNotFoundError:
        raise ConfigError(f"{file}: is missing; install celerypipe again, from the whole of its repository") from None


def _changed(content: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        content = content.replace(old, new)
    return content
