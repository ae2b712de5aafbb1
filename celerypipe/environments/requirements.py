"""Requirements as lines: of a list, or of a file as pip reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from celerypipe.errors import ConfigError
from celerypipe.folders import path_of

#: Options of such a line that name a file or a folder, and what stands behind them.
_PLACED = re.compile(r"(-c|--constraint|-f|--find-links)(?:\s+|=)(\S+)$")
_INCLUDED = re.compile(r"(?:-r|--requirement)(?:\s+|=)?(\S+)$")
_COMMENT = re.compile(r"(^|\s)#.*$")


def lines_of(file: Path) -> tuple[str, ...]:
    """Return what a file asks for, with the files that it includes; :class:`ConfigError` names one that is missing.

    What is named relative to a file is given in full, for the lines are read from elsewhere.
    """
    return tuple(dict.fromkeys(_lines(file, ())))


def in_full(line: str, folder: Path) -> str:
    """Return a line with the file or folder that it names in full."""
    if found := _PLACED.match(line):
        option, place = found.groups()
        there = folder / path_of(place)
        return f"{option} {there.absolute()}" if "://" not in place and there.exists() else line
    if line.startswith(("./", "../", "~/")):
        return str((folder / path_of(line)).absolute())
    return line


def files_in(lines: tuple[str, ...]) -> list[Path]:
    """Return the files whose content counts with these lines: constraints."""
    found = (_PLACED.match(line) for line in lines)
    named = [Path(each[2]) for each in found if each is not None and each[1] in ("-c", "--constraint")]
    return [path for path in named if path.is_file()]


def _lines(file: Path, above: tuple[Path, ...]) -> Iterator[str]:
    if file in above:
        raise ConfigError(f"{file}: includes itself; take out a line -r")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        asked = f", which {above[-1]} includes" if above else ""
        raise ConfigError(f"there is no file {file}{asked}; write it, or name another one") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    for written in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = _COMMENT.sub("", written).strip()
        if included := _INCLUDED.match(line):
            yield from _lines(file.parent / path_of(included[1]), (*above, file))
        elif line:
            yield in_full(line, file.parent)
