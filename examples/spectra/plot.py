"""The picture of the study: one input, and the errors over the noise beside what theory allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from recordings import RATE, Case, bound

mpl.use("agg")  # no screen is needed

from matplotlib import pyplot as plt  # after the choice above


def rms_by_noise(studied: Sequence[Case], errors: Sequence[NDArray[np.float64]]) -> dict[float, float]:
    """Return the root mean square of all errors at each level of noise, dB."""
    by_noise: dict[float, list[NDArray[np.float64]]] = {}
    for case, each in zip(studied, errors, strict=True):
        by_noise.setdefault(case.decibels, []).append(each)
    return {decibels: float(np.sqrt(np.mean(np.square(some)))) for decibels, some in by_noise.items()}


def plot(
    studied: Sequence[Case],
    inputs: Sequence[NDArray[np.complex64]],
    errors: Sequence[NDArray[np.float64]],
    path: Path,
) -> Path:
    """Draw the study and return where the picture is."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    shown = min(range(len(studied)), key=lambda number: (abs(studied[number].decibels), -studied[number].slope))
    case = studied[shown]
    left.specgram(inputs[shown][0], NFFT=128, noverlap=112, Fs=RATE, cmap="magma")
    left.set(title=f"a chirp of {case.slope:.0f} Hz/s, {case.decibels:.0f} dB above the noise", xlabel="s", ylabel="Hz")
    found = rms_by_noise(studied, errors)
    decibels = np.array(list(found))
    right.semilogy(decibels, list(found.values()), "o-", label="estimates")
    right.semilogy(decibels, bound(decibels), "--", label="Cramér-Rao bound")
    right.set(title="error of the slope", xlabel="chirp against noise, dB", ylabel="RMS, Hz/s")
    right.grid(which="both", alpha=0.3)
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
