"""The inputs of the study, and what theory says of them: chirps in noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Samples a second, samples in a recording, recordings in one input.
RATE, SAMPLES, TRIALS = 8000, 1024, 12


@dataclass(frozen=True, slots=True)
class Case:
    """One input: a chirp's first frequency, Hz, its slope, Hz a second, and how loud it is against the noise, dB."""

    first: float
    slope: float
    decibels: float

    def recordings(self, seed: int) -> NDArray[np.complex64]:
        """Return the chirp in fresh noise, as often as there are trials; the same for the same seed."""
        dice = np.random.default_rng(seed)
        time = np.arange(SAMPLES) / RATE
        phase = 2 * np.pi * (self.first * time + self.slope * time**2 / 2)
        starts = dice.uniform(0, 2 * np.pi, (TRIALS, 1))
        noise = dice.normal(size=(TRIALS, SAMPLES, 2)) @ np.array([1, 1j]) / np.sqrt(2)
        chirp = 10 ** (self.decibels / 20) * np.exp(1j * (phase + starts))
        found: NDArray[np.complex64] = (chirp + noise).astype(np.complex64)
        return found


def cases() -> list[Case]:
    """Return the 100 of them: five slopes, at twenty levels of noise."""
    slopes = (-2000.0, -700.0, 0.0, 900.0, 2500.0)
    return [Case(1200.0, slope, decibels) for decibels in np.linspace(-26.0, 12.0, 20).tolist() for slope in slopes]


def bound(decibels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest error of a slope that any estimate can have on average, Hz a second.

    Source: Djurić and Kay, Parameter estimation of chirp signals, 1990: the Cramér-Rao bound.
    """
    count = float(SAMPLES)
    variance = 90 / (10 ** (decibels / 10) * count * (count**2 - 1) * (count**2 - 4))
    found: NDArray[np.float64] = np.sqrt(variance) * RATE**2 / np.pi
    return found
