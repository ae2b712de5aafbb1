"""Templates: files whose names end in ``-tpl``, so that no tool takes them for modules.

Some are links to the sources of the examples; a wheel has those as files.
"""

from __future__ import annotations

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
    for path, content in files.items():
        try:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (folder / path).open("x", encoding="utf-8") as file:
                file.write(content)
        except OSError as error:
            raise ConfigError(f"{folder / path}: cannot be written: {error.strerror}") from None


def _filled(file: Path, changes: Mapping[str, str]) -> str:
    try:
        return _changed(file.read_text(encoding="utf-8"), changes)
    except FileNotFoundError:
        raise ConfigError(f"{file}: is missing; install celerypipe again, from the whole of its repository") from None


def _changed(content: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        content = content.replace(old, new)
    return content
