"""``srt``: a sink that writes subtitles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from celerypipe.contract.contract import Sink
from celerypipe.errors import ConfigError
from celerypipe.message.message import Message
from celerypipe.nodes.parts.naming import Naming, write_whole

#: The line of times in a subtitle file, and what stands before and behind it.
TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{3}) --> (\d+):(\d\d):(\d\d)[,.](\d{3})")


class Subtitle(NamedTuple):
    """A text and when it is shown: milliseconds since the beginning of the recording."""

    start: int
    end: int
    text: str


class SrtSink(Sink):
    """Writes the subtitles of each recording to a file of its own (SubRip, ``.srt``), which is whole at any time.

    The payload has ``segments``: mappings with ``start`` and ``end`` (seconds since the recording's beginning) and
    ``text``. Any number of messages may be about one recording; they are put in the order of their times. A file that
    was there before is replaced by the run's first message about it; a run that is resumed goes on in it.

    ``folder``: where to; a relative one starts at the current folder; missing folders are made. Default: the node's
    own folder in the pipeline's folder
    ``pattern``: the file's name, as for ``str.format``: fields are the entries of ``meta``, such as ``name``. Two
    recordings, by the entry ``path``, that get the same name are an error
    """

    tell_apart = "write a 'pattern' that tells them apart, such as '{sequence}-{name}.srt'"

    def __init__(self, folder: str | None = None, pattern: str = "{name}.srt") -> None:
        self.naming = Naming("srt", folder, pattern)
        if Path(pattern).suffix.lower() != ".srt":
            raise ValueError(f"pattern: {pattern!r} is no name of a subtitle file; write '{{name}}.srt'")
        self._goes_on = False
        self._written: dict[Path, set[Subtitle]] = {}
        self._about: dict[Path, str] = {}

    def configure(self) -> None:
        """Settle where to; :class:`ConfigError` when nobody says it."""
        self.naming.settle(self.folder, self.reach)

    def warmup(self) -> None:
        """Make the folder; :class:`ConfigError` when that cannot be done."""
        self.naming.make()
        if self.record is not None:
            try:
                self._goes_on = self.record.exists()
                self.record.touch()
            except OSError as error:
                raise ConfigError(f"{self.record}: cannot be written: {error.strerror}") from error

    def update(self, message: Message) -> None:
        """Add the subtitles to the recording's file; TypeError or ValueError for what has none."""
        subtitles = subtitles_of(message.payload)
        target = self.naming.target(message, self.reach)
        path = str(message.meta.get("path", ""))
        if self._about.setdefault(target, path) != path:
            raise ValueError(f"{target} has the subtitles of {self._about[target]}, not of {path}; {self.tell_apart}")
        if target not in self._written:
            self._written[target] = read_subtitles(target) if self._goes_on else set()
        self._written[target] |= set(subtitles)  # one that is there already was written before the run was resumed
        write_whole(target, as_srt(self._written[target]), message)


def subtitles_of(payload: Any) -> list[Subtitle]:
    """Return the subtitles of a payload; TypeError or ValueError, naming the segment, where it has none."""
    segments = payload.get("segments") if isinstance(payload, Mapping) else None
    if not isinstance(segments, (list, tuple)):
        raise TypeError(
            f"srt takes an Object with 'segments', a list of start, end and text; not {type(payload).__name__}"
            + (f" with {', '.join(map(repr, payload)) or 'nothing'}" if isinstance(payload, Mapping) else "")
        )
    return [_subtitle(segment, f"segments[{index}]") for index, segment in enumerate(segments)]


def _subtitle(segment: Any, place: str) -> Subtitle:
    try:
        start, end, text = round(segment["start"] * 1000), round(segment["end"] * 1000), str(segment["text"])
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValueError(f"{place}: {segment!r} needs 'start', 'end' (seconds) and 'text'") from error
    if not 0 <= start <= end:
        raise ValueError(f"{place}: from {segment['start']!r} to {segment['end']!r} s is no time in a recording")
    # An empty line ends a subtitle, so there is none within.
    return Subtitle(start, end, "\n".join(line.strip() for line in text.splitlines() if line.strip()))


def as_srt(subtitles: set[Subtitle]) -> bytes:
    """Return subtitles as the content of a file, in the order of their times, numbered from 1."""
    shown = [subtitle for subtitle in sorted(subtitles) if subtitle.text]
    blocks = [
        f"{number}\n{_time(start)} --> {_time(end)}\n{text}\n"
        for number, (start, end, text) in enumerate(shown, start=1)
    ]
    return "\n".join(blocks).encode("utf-8", "replace")


def read_subtitles(path: Path) -> set[Subtitle]:
    """Return the subtitles of a file; none if it is not there."""
    if not path.is_file():
        return set()
    found = set()
    for block in path.read_text("utf-8").split("\n\n"):
        lines = block.strip().split("\n")
        times = TIMES.fullmatch(lines[1]) if len(lines) > 1 else None
        if times is not None:
            numbers = [int(digits) for digits in times.groups()]
            start, end = (
                ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest
                for hours, minutes, seconds, rest in (numbers[:4], numbers[4:])
            )
            found.add(Subtitle(start, end, "\n".join(lines[2:])))
    return found


def _time(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02},{rest:03}"
