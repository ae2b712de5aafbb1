"""Which files a node may touch: those below the folders within its reach, whatever a definition or a message says.

A pipeline written in Python is its user's own code and reaches everything. A pipeline file may be somebody else's, and
what a worker is sent comes from whoever reaches Redis: both reach only what the user of this machine allows.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from celerypipe.contract.programs import Programs
from celerypipe.errors import ConfigError
from celerypipe.folders import distinct, is_within, path_of

#: The longest part of a file's name that is taken from a message; file systems end at 255 bytes, suffixes included.
LONGEST = 120


@dataclass(frozen=True, slots=True)
class Reach:
    """Folders below which files may be read and written; None: anywhere.

    ``cure`` ends the error about a path that leads elsewhere: what to do if the path is meant; ``{folder}`` in it is
    the folder to allow. ``programs``: those that may be run, by name; None: as the files of this machine say. All
    compare equal: a pipeline in a file is the same as its twin in Python, wherever it came from.
    """

    folders: tuple[Path, ...] | None = field(default=None, compare=False)
    cure: str = field(default="", compare=False)
    programs: Programs | None = field(default=None, compare=False)

    @classmethod
    def of(cls, folders: Iterable[Path], cure: str, programs: Programs | None = None) -> Self:
        """Return the reach of these folders, relative ones seen from the current one."""
        return cls(distinct(path_of(folder).absolute() for folder in folders), cure, programs)

    def complaint(self, path: Path | str) -> str:
        """Say why a path is out of reach, links followed; nothing if it is within."""
        if self.folders is None:
            return ""
        try:
            place = Path(path).resolve()
            if any(is_within(place, folder) for folder in self.folders):
                return ""
            is_file = place.is_file() or (place.suffix != "" and not place.is_dir())
            folder = place.parent if is_file else place
        except (OSError, RuntimeError, ValueError) as error:  # a circle of links; a NUL in the name
            return f"{str(path)!r} is no path: {error}"
        shown = f"{str(path)!r}, which is {str(place)!r}" if str(path) != str(place) else repr(str(path))
        among = ", ".join(map(str, self.folders)) or "none"
        cure = self.cure.replace("{folder}", shlex.quote(str(folder)))
        return f"{shown} is outside the allowed folders: {among}; {cure}"

    def require(self, path: Path | str) -> None:
        """Raise :class:`ConfigError` for a path that is out of reach."""
        complaint = self.complaint(path)
        if complaint:
            raise ConfigError(complaint)


def file_name(text: str) -> str:
    """Return a text that came in a message as one part of a file's name: no slash, no dot in front, not too long.

    A text that had to be changed gets a digest of what it was, so that two of them stay apart.
    """
    name = re.sub(r"[^\w.-]", "_", text, flags=re.ASCII)[:LONGEST].lstrip(".")
    if name == text and name:
        return name
    return f"{name}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


#: No bounds.
ANYWHERE = Reach()
