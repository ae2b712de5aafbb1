"""Functions for the queue ``spectra``: what is in a recording, by its spectrum. Needs numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from celerypipe import node

Complex = NDArray[np.complex64] | NDArray[np.complex128]

#: The steepest chirp that is looked for, in Hz a second, up or down.
STEEPEST = 3000.0
#: Parts that a recording is divided into where the estimate is made finer.
PARTS = 32


@node(queue="spectra", timeout=60, cache="1d", version="1")
def chirps(recordings: Complex, rate: int) -> NDArray[np.float64]:
    """Find the one linear chirp in each recording: its first frequency, Hz, and how it changes, Hz a second.

    ``recordings``: complex samples, shape ``(n, samples)``; ``rate``: samples a second. Returns shape ``(n, 2)``.

    It is the estimate of highest likelihood in white noise: of all rates of change the one that, taken out of the
    recording, leaves the highest peak in its spectrum; then both are made finer by the phases of what is left.

    Source: Abatzoglou, Fast maximum likelihood joint estimation of frequency and frequency rate, 1986.
    """
    recordings = np.asarray(recordings, np.complex128)
    time = np.arange(recordings.shape[1]) / rate
    return np.array([_finer(each, time, *_roughly(each, time)) for each in recordings])


def _roughly(recording: Complex, time: NDArray[np.float64]) -> tuple[float, float]:
    """Look at a grid: two points to the width of the peak, in both directions."""
    duration = time[-1] + time[1]
    slopes = np.arange(-STEEPEST, STEEPEST, 0.5 / duration**2)
    length = 2 * len(recording)
    best = (0.0, 0.0, 0.0)
    for slope in slopes:
        power = np.abs(np.fft.fft(recording * np.exp(-1j * np.pi * slope * time**2), length))
        place = int(np.argmax(power))
        best = max(best, (float(power[place]), float(np.fft.fftfreq(length, time[1])[place]), float(slope)))
    return best[1:]


def _finer(recording: Complex, time: NDArray[np.float64], first: float, slope: float) -> tuple[float, float]:
    """Take the chirp out: what is left turns slowly, and as its parabola says it is off."""
    for _ in range(3):
        left = recording * np.exp(-2j * np.pi * (first * time + slope * time**2 / 2))
        sums = left.reshape(PARTS, -1).sum(axis=1)
        middles = time.reshape(PARTS, -1).mean(axis=1)
        phases = np.unwrap(np.angle(sums * np.conj(sums.sum())))
        bend, turn, _ = np.polynomial.polynomial.polyfit(middles, phases, 2, w=np.abs(sums))[::-1]
        first, slope = first + turn / (2 * np.pi), slope + bend / np.pi
    return first, slope
