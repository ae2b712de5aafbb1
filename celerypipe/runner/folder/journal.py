"""The journal of a run: which source messages are through, in a file that survives the run's process.

``<folder>/journals/<run>/journal.jsonl``: a head, then a line for each time something was noted. A line is whole or not
there: what a killed process wrote half of is cut off. Whoever writes to it holds a lock, which dies with the process.
Beside it lie the records of sinks, ``<node>.written``, which go when it goes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celerypipe.contract.positions import Positions
from celerypipe.errors import ConfigError
from celerypipe.process import forks

#: The file of one journal.
FILE = "journal.jsonl"
#: What the records of sinks end with.
RECORD = ".written"
#: The form of the file.
FORM = 1
#: A journal that has grown by more bytes than this, and doubled, is written again.
REWRITE = 1024 * 1024

#: What a run may be called, and so the folder of its journal.
RUN = re.compile(r"[0-9a-f]{4,64}")

#: Bytes that the first line of a journal may have.
LONGEST_HEAD = 16 * 1024 * 1024


class NoJournal(ValueError):
    """A file that is no journal, or one that is damaged; the text says which line."""


@dataclass(slots=True)
class JournalContent:
    """What a journal says.

    ``runs``: the run that began it and those that went on from it; ``parts``: digests of what its pipeline consisted
    of; ``through``: by source, the positions that are through; ``following``: by source, the number after the highest
    that a message which is through had; ``obstacle``: why the run cannot go on.
    """

    runs: list[str]
    pipeline: str
    started: float
    parts: Mapping[str, str] = field(default_factory=dict)
    through: dict[str, Positions] = field(default_factory=dict)
    following: dict[str, int] = field(default_factory=dict)
    obstacle: str = ""

    @property
    def count(self) -> int:
        """How many source messages are through."""
        return sum(map(len, self.through.values()))

    def add(self, through: Mapping[str, Positions], following: Mapping[str, int]) -> None:
        """Note what else is through."""
        for source, positions in through.items():
            self.through.setdefault(source, Positions()).update(positions)
        for source, number in following.items():
            self.following[source] = max(number, self.following.get(source, 0))

    def lines(self) -> bytes:
        """Return the whole file, as short as can be."""
        head = {
            "celerypipe_journal": FORM,
            "runs": self.runs,
            "pipeline": self.pipeline,
            "started": self.started,
            "parts": dict(self.parts),
            "obstacle": self.obstacle,
        }
        return line_of(head) + noted(self.through, self.following)


def line_of(value: Any) -> bytes:
    """Return one line."""
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def noted(through: Mapping[str, Positions], following: Mapping[str, int]) -> bytes:
    """Return the line that says what is through: one for all of a moment, so that it counts as a whole or not."""
    return line_of(
        {"through": {name: found.to_list() for name, found in through.items()}, "following": dict(following)}
    )


def parse(data: bytes) -> JournalContent:
    """Read a journal; :class:`NoJournal` for what is none. A last line without its end counts for nothing."""
    *lines, _ = data.split(b"\n")
    if not lines:
        raise NoJournal("it has no whole line")
    content = _head(_object(lines[0], 1))
    for number, line in enumerate(lines[1:], start=2):
        said = _object(line, number)
        try:
            content.add(
                {str(name): Positions.from_list(items) for name, items in said["through"].items()},
                {str(name): int(count) for name, count in said["following"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NoJournal(f"line {number} is damaged: {error}") from None
    return content


def head_of(path: Path) -> JournalContent:
    """Read the head of a journal alone; raises as :func:`parse` does."""
    with path.open("rb") as file:
        return _head(_object(file.readline(LONGEST_HEAD), 1))


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise NoJournal(f"line {number} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise NoJournal(f"line {number} is no object")
    return value


def _head(head: dict[str, Any]) -> JournalContent:
    form = head.get("celerypipe_journal")
    if form != FORM:
        raise NoJournal("it does not begin as a journal does" if form is None else f"its form is {form!r}, not {FORM}")
    match head:
        case {"runs": [str(), *_] as runs, "pipeline": str() as pipeline, "started": int() | float() as started} if all(
            isinstance(run, str) and RUN.fullmatch(run) for run in runs
        ):
            parts = head.get("parts")
            found = JournalContent(runs, pipeline, started, parts if isinstance(parts, dict) else {})
            found.obstacle = str(head.get("obstacle", ""))
            return found
    raise NoJournal("line 1 is damaged")


class Journal:
    """A journal that a run writes to. Made by :meth:`create` or :meth:`open`; a lock keeps all others out."""

    def __init__(self, place: Path, descriptor: int, content: JournalContent) -> None:
        self.place = place
        self.content = content
        self._file = descriptor
        #: Bytes of whole lines, and those that came since it was written as a whole.
        self._size = self._grown = 0

    @classmethod
    def create(cls, place: Path, content: JournalContent) -> Journal:
        """Begin one in this folder, which is made; OSError if that cannot be."""
        place.mkdir(parents=True)
        path = place / FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        journal = cls(place, descriptor, content)
        try:
            journal._append(content.lines())
        except OSError:
            os.close(descriptor)
            raise
        forks.keep(journal)
        return journal

    @classmethod
    def open(cls, place: Path, run: str) -> Journal:
        """Go on with one, for another ``run``; :class:`ConfigError` when it is in use or is no journal."""
        path = place / FILE
        try:
            descriptor = locked(path)
        except BlockingIOError:
            raise ConfigError(f"{path} is in use: that run is still active") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be opened: {error.strerror}") from None
        try:
            with open(descriptor, "rb", closefd=False) as file:
                content = parse(file.read())
            content.runs.append(run)
            journal = cls(place, descriptor, content)
            journal._write_again()
        except NoJournal as error:
            os.close(descriptor)
            raise ConfigError(f"{path} is no journal: {error}") from None
        except OSError as error:
            os.close(descriptor)
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
        forks.keep(journal)
        return journal

    def note(self, through: Mapping[str, Positions], following: Mapping[str, int]) -> None:
        """Write what is through now; OSError when it cannot be written, and then nothing of it is."""
        self._append(noted(through, following))
        self.content.add(through, following)
        if self._grown > REWRITE and self._grown > self._size // 2:
            self._grown = 0
            with contextlib.suppress(OSError):  # all is noted, and it stays longer than it need be
                self._write_again()

    def forbid(self, obstacle: str) -> None:
        """Say why the run cannot go on, whatever is through; OSError when that cannot be written."""
        self.content.obstacle = obstacle
        self._write_again()

    def record(self, node: str) -> Path:
        """Return the file in which this sink notes what it wrote."""
        return self.place / f"{node}{RECORD}"

    def close(self) -> None:
        """Let go of it."""
        descriptor, self._file = self._file, -1
        os.close(descriptor)

    def leave_to_parent(self) -> None:
        """Called in a fork, such as a pool of a node: it must not keep the lock when the run is killed."""
        if self._file >= 0:
            self.close()

    def remove(self) -> None:
        """Let go of it for good: its run is done."""
        remove(self.place)
        self.close()

    def _append(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            with contextlib.suppress(OSError):  # half a line must not stand in the middle
                os.ftruncate(self._file, self._size)
                os.lseek(self._file, self._size, os.SEEK_SET)
            raise
        self._size += len(data)
        self._grown += len(data)

    def _write_again(self) -> None:
        """Replace the file by a short one, which appears as a whole; the lock is held all the time."""
        data = self.content.lines()
        draft = self.place / f".{os.getpid()}.part"
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            old, size, self._file, self._size = self._file, self._size, descriptor, 0
            try:
                self._append(data)
                draft.replace(self.place / FILE)
            except OSError:
                self._file, self._size = old, size
                raise
        except OSError:
            os.close(descriptor)
            draft.unlink(missing_ok=True)
            raise
        os.close(old)
        self._grown = 0


def locked(path: Path) -> int:
    """Open the file and lock it; BlockingIOError when another process has the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its owner may have replaced it between the two calls.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:  # an interrupt too must leave no open file behind; it is raised again
            os.close(descriptor)
            raise
        os.close(descriptor)


def remove(place: Path) -> None:
    """Remove a journal and the records beside it; anything else in its folder stays."""
    for path in (place / FILE, *place.glob(f"*{RECORD}"), *place.glob(".*.part")):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
            path.unlink()
    try:
        place.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
