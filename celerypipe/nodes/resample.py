"""``resample``: a proc that changes how many samples a second a sound has, and how many channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from celerypipe.contract.contract import Proc
from celerypipe.message.message import Message
from celerypipe.message.payload import Audio
from celerypipe.nodes.parts.arguments import whole
from celerypipe.nodes.parts.package import required

#: Hz; what is above no recorder has, and FFmpeg cannot do all of it.
HIGHEST = 10_000_000


class Resample(Proc):
    """Sends each :class:`Audio` with another rate or number of channels, as float32 from -1 to 1.

    Takes float32 and float64 (from -1 to 1), int16 and int32, of shape ``(samples,)`` or ``(samples, channels)``. What
    is as wanted already is sent on unchanged.

    Needs ``pip install 'celerypipe[speech]'`` (PyAV, which is FFmpeg).

    ``rate``: samples a second (Hz) of what is sent
    ``channels``: 1 mixes all into one, 2 makes two; 0: as they come
    """

    version = "1"

    def __init__(self, rate: int = 16000, channels: int = 1) -> None:
        self.rate = whole("rate", rate, at_least=1, at_most=HIGHEST)
        self.channels = whole("channels", channels)
        if self.channels > 2:
            raise ValueError(f"channels: {channels} is none of 0 (as they come), 1 (mono) and 2 (stereo)")

    def configure(self) -> None:
        """Look for the package; :class:`ConfigError` when it is missing."""
        required("av", "resample", "speech")

    def update(self, message: Message) -> Message:
        """Return the sound as wanted; TypeError or ValueError for what is none."""
        return message.with_payload(resampled(message.payload, self.rate, self.channels))


def resampled(payload: Any, rate: int, channels: int) -> Audio:
    """Return a sound with this rate (Hz) and so many channels (0: as they are)."""
    samples = samples_of(payload)
    if payload.sampling_rate <= 0:
        raise ValueError("this Audio does not say its sampling_rate (Hz); set it in the node that makes it")
    if payload.sampling_rate > HIGHEST:
        raise ValueError(f"this Audio has a sampling_rate of {payload.sampling_rate} Hz; at most {HIGHEST} are taken")
    given = samples.shape[1]
    wanted = channels or given
    if given == wanted and payload.sampling_rate == rate:
        return _audio(samples, payload, rate)
    if not len(samples):
        return _audio(np.empty((0, wanted), np.float32), payload, rate)
    if wanted == 1 and given > 1:
        samples, given = samples.mean(axis=1, dtype=np.float32, keepdims=True), 1
    elif wanted == 2 and given == 1:
        samples, given = np.repeat(samples, 2, axis=1), 2
    elif wanted != given:
        raise ValueError(f"{given} channels cannot be made {wanted}; give 'channels' 1, or 0 to keep them")
    if payload.sampling_rate != rate:
        columns = [_with_rate(samples[:, column], payload.sampling_rate, rate) for column in range(given)]
        samples = np.stack(columns, axis=1)
    return _audio(samples, payload, rate)


def samples_of(payload: Any) -> NDArray[np.float32]:
    """Return a sound's samples as float32 from -1 to 1, shape ``(samples, channels)``; TypeError for what is none."""
    if not isinstance(payload, Audio):
        raise TypeError(f"an Audio is expected, not {type(payload).__name__}; put a node before it that makes one")
    samples = payload.audio
    if samples.ndim not in (1, 2):
        raise TypeError(f"sound of shape {samples.shape}; it takes (samples,) or (samples, channels)")
    if samples.dtype in (np.int16, np.int32):
        samples = samples.astype(np.float32) / np.float32(-float(np.iinfo(samples.dtype).min))
    elif samples.dtype not in (np.float32, np.float64):
        raise TypeError(f"sound in {samples.dtype}; it takes float32, float64, int16 or int32")
    return (samples[:, None] if samples.ndim == 1 else samples).astype(np.float32, copy=False)


def _with_rate(samples: NDArray[np.float32], given: int, rate: int) -> NDArray[np.float32]:
    av = required("av", "resample", "speech")
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None, :], format="flt", layout="mono")
    frame.sample_rate = given
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    pieces = [piece.to_ndarray()[0] for part in (frame, None) for piece in resampler.resample(part)]
    return np.concatenate(pieces) if pieces else np.empty(0, np.float32)  # of a few samples nothing is left


def _audio(samples: NDArray[np.float32], payload: Audio, rate: int) -> Audio:
    number = samples.shape[1]
    return Audio(samples[:, 0] if number == 1 else samples, rate, "flt", number, payload.start, payload.end)
