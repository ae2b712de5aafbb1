"""The files that a sink writes: one a message or a recording, named by a pattern, whole or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from celerypipe.contract.reach import Reach
from celerypipe.errors import ConfigError
from celerypipe.folders import path_of
from celerypipe.message.message import Message
from celerypipe.nodes.parts.arguments import placeholders


class Naming:
    """Where the file of each message is: a folder, and a pattern for its name.

    ``mark``: the sink's, for errors. ``folder``: where to; a relative one starts at the current folder. None: the
    node's own folder. ``pattern``: the file's name, as for ``str.format``: its fields are the entries of ``meta``, and
    ``id``, ``origin``, ``sequence`` and ``version``. In texts from a message only letters, digits, ``_``, ``-`` and
    ``.`` are kept, others become ``_``: no message can name a file outside the folder.
    """

    def __init__(self, mark: str, folder: str | None, pattern: str) -> None:
        self.folder = None if folder is None else path_of(folder)
        self.pattern = pattern
        self._mark = mark
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise ValueError(f"pattern: {pattern!r} leads out of the folder; write the name of a file in it")
        self._fields = _fields(pattern)

    def settle(self, own: Path | None, reach: Reach) -> None:
        """Find out where to, in the node's own folder if no other was given; :class:`ConfigError` if there is none."""
        self.folder = self.folder or own
        if self.folder is None:
            raise ConfigError(f"{self._mark}: give 'folder', or give the pipeline one")
        reach.require(self.folder)

    def make(self) -> None:
        """Make the folder; :class:`ConfigError` when that cannot be done."""
        folder = self._settled()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be made: {error.strerror}; correct 'folder'") from error

    def place(self, message: Message) -> str:
        """Return the file that the message goes to."""
        return str((self.folder or Path()) / self._name(message))

    def target(self, message: Message, reach: Reach) -> Path:
        """Return the same as a path, in a folder that is there; ``LookupError`` when ``meta`` lacks a field."""
        target = self._settled() / self._name(message)
        reach.require(target.parent)  # a link below the folder may lead out of it
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _name(self, message: Message) -> str:
        known = {
            **message.meta,
            "id": message.id,
            "origin": message.origin,
            "sequence": message.sequence,
            "version": message.version,
        }
        if missing := sorted(self._fields - known.keys()):
            had = ", ".join(map(repr, message.meta)) or "nothing"
            raise LookupError(
                f"pattern: {self.pattern!r} asks for {missing[0]!r}; this message's meta has {had}; write a pattern of "
                "those, and of id, origin, sequence and version"
            )
        return self.pattern.format(**{field: _safe(known[field]) for field in self._fields})

    def _settled(self) -> Path:
        if self.folder is None:
            raise RuntimeError(f"{self._mark}: no folder yet; call configure() first")
        return self.folder


def write_whole(target: Path, content: bytes, message: Message) -> None:
    """Write a file that appears whole or not at all; OSError when the disk is full."""
    draft = target.with_name(f".{os.getpid()}-{_safe(message.id)}.part")
    try:
        draft.write_bytes(content)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _fields(pattern: str) -> set[str]:
    """Return the names of the fields in a pattern; ValueError unless they are plain names."""
    names = placeholders("pattern", pattern)
    if odd := sorted(name for name in names if not name.isidentifier()):
        raise ValueError(f"pattern: {pattern!r} has the field {odd[0]!r}; write the name of an entry of meta")
    return names


def _safe(value: Any) -> Any:
    """Return a number as it is (for ``{sequence:04d}``), anything else as a text that is one part of a file name."""
    if isinstance(value, int | float):
        return value
    text = re.sub(r"[^\w.-]", "_", str(value))[:150]
    return re.sub(r"^\.+", lambda dots: "_" * len(dots.group()), text) or "_"
