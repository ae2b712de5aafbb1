"""``audio_file``: a source that decodes recordings."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from celerypipe.contract.contract import Source
from celerypipe.contract.positions import Position
from celerypipe.contract.readings import Readings
from celerypipe.message.message import Message
from celerypipe.message.payload import Audio
from celerypipe.nodes.parts.arguments import whole
from celerypipe.nodes.parts.package import required
from celerypipe.nodes.parts.selection import Selection
from celerypipe.nodes.resample import HIGHEST

#: What is taken from a folder when no pattern says otherwise.
SUFFIXES = frozenset(
    {".aac", ".aif", ".aiff", ".flac", ".m4a", ".mka", ".mkv", ".mov", ".mp3", ".mp4", ".ogg", ".opus", ".wav", ".webm"}
)


class AudioFileSource(Source):
    """Decodes recordings, and the sound of films, and sends each as one :class:`Audio`: float32 from -1 to 1.

    ``audio`` has the shape ``(samples,)`` with one channel, else ``(samples, channels)``. ``start`` and ``end`` are
    seconds since the file's beginning; ``start`` is 0, but in a film whose sound comes later. A gap in the file's own
    times is none in the sound. ``meta``: ``name`` (the file's name without its suffix) and ``path``; ``version`` counts
    files from 0. A file without sound, or one that FFmpeg refuses, is an error that names it: ``on_error`` of the node
    decides, and with ``skip`` the others are sent. Where the end of a file is missing, FFmpeg decodes most kinds as far
    as they go, and says nothing. A run of it can be resumed: files are known by their paths, so that some may come or
    go meanwhile. An hour takes 230 MB at 16 kHz.

    Needs ``pip install 'celerypipe[speech]'`` (PyAV, which is FFmpeg).

    ``paths``: the files, in this order
    ``folder``: instead of ``paths``: a folder, its recordings by name; hidden ones (``.a``, ``._a``) are left out
    ``pattern``: which files of the folder, such as ``"*.mp3"`` or ``"**/*.wav"``; default: those with a suffix that
    recordings and films have
    ``rate``: samples a second (Hz) of what is sent, whatever the file has; 0: as the file has it
    ``channels``: 1 mixes all channels into one, 2 makes two of them; 0: as the file has them
    """

    def __init__(
        self,
        paths: list[str] | None = None,
        folder: str | None = None,
        pattern: str | None = None,
        rate: int = 16000,
        channels: int = 1,
    ) -> None:
        self.files = Selection(paths, folder, pattern, what="recording", suffixes=SUFFIXES)
        self.rate = whole("rate", rate, at_most=HIGHEST)
        self.channels = whole("channels", channels)
        if self.channels > 2:
            raise ValueError(f"channels: {channels} is none of 0 (as in the file), 1 (mono) and 2 (stereo)")

    def configure(self) -> None:
        """Find the files; :class:`ConfigError` names those that are missing, or the package that is."""
        required("av", "audio_file", "speech")
        self.files.find(self.reach)

    def position(self, message: Message) -> str:
        """Return the path of the file."""
        return self.files.names[message.version]

    def seek(self, through: Container[Position]) -> None:
        """Leave out these files."""
        self.files.seek(through)

    def total(self) -> int:
        """Return the number of files, without those that are left out."""
        return self.files.total()

    def messages(self) -> Iterator[Message]:
        """Yield one message a recording."""
        return Readings(self.message, self.files.wanted())

    def message(self, index: int) -> Message:
        """Decode a recording; OSError when it cannot be read, ValueError when it has no sound, both naming it."""
        path = self.files.paths[index]
        audio = decoded(path, rate=self.rate, channels=self.channels)
        return Message(audio, meta={"name": path.stem, "path": str(path)}, version=index)

    def stop(self) -> None:
        """Read no further file."""
        self.files.stop()


def decoded(path: Path, *, rate: int = 16000, channels: int = 1) -> Audio:
    """Return the sound of a file; OSError when it cannot be read, ValueError when it has none, both naming it.

    ``rate`` in Hz and ``channels`` are those of the result, 0 means those of the file.
    """
    av = required("av", "audio_file", "speech")
    path.open("rb").close()  # what keeps it from being read is said by the system, not by the decoder
    try:
        with av.open(str(path), **_lenient(av)) as container:
            if not container.streams.audio:
                raise ValueError(f"{path}: no sound in it")
            stream = container.streams.audio[0]
            rate = rate or stream.rate
            layout = {0: stream.layout, 1: "mono", 2: "stereo"}[channels]
            number = channels or stream.channels
            # FFmpeg lets a mix of several channels be louder than each of them, but not in whole numbers.
            kind = "s32" if number < stream.channels else "flt"
            pieces = list(_pieces(container, stream, av.AudioResampler(format=kind, layout=layout, rate=rate)))
            start = _start(container, stream, av.time_base)
    except av.FFmpegError as error:
        raise ValueError(f"{path}: no recording that FFmpeg can decode ({error.strerror})") from error
    samples = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
    if not samples.size:
        raise ValueError(f"{path}: a recording of 0 s")
    shaped = samples if number == 1 else samples.reshape(-1, number)
    return Audio(shaped, rate, "flt", number, start, start + len(shaped) / rate)


def _start(container: Any, stream: Any, ticks: int) -> float:
    """When a sound begins, in seconds since the file's beginning."""
    if stream.start_time is None or container.start_time is None:
        return 0.0
    begins: float = stream.start_time * float(stream.time_base) - container.start_time / ticks
    return max(0.0, begins)


def _lenient(av: Any) -> dict[str, str]:
    """Before PyAV 19 a title that is no UTF-8, as many a file has, kept it from being opened."""
    return {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}


def _pieces(container: Any, stream: Any, resampler: Any) -> Iterator[Any]:
    for frame in container.decode(stream):
        frame.pts = None  # gaps and jumps of the clock in the file are none in the sound
        yield from map(_samples, resampler.resample(frame))
    yield from map(_samples, resampler.resample(None))


def _samples(piece: Any) -> NDArray[np.float32]:
    found: NDArray[Any] = piece.to_ndarray()[0]
    return found if found.dtype == np.float32 else (found / np.float64(2**31)).astype(np.float32)
