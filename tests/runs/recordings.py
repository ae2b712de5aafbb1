"""Recordings for tests: real speech out of a wheel, and sounds that are made here."""

from __future__ import annotations

import importlib.metadata
import re
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

#: What is read in ``two_cities.wav`` (Dickens, 1859).
TWO_CITIES = (
    "It was the best of times, it was the worst of times. It was the age of wisdom, it was the age of foolishness. "
    "It was the epoch of belief, it was the epoch of incredulity. It was the season of light, it was the season of "
    "darkness. It was the spring of hope, it was the winter of despair. We had everything before us, we had nothing "
    "before us. We were all going direct to heaven, we were all going direct the other way. In short, the period was "
    "so far like the present period that some of its noisiest authorities insisted on its being received for good or "
    "for evil in the superlative degree of comparison only."
)


def speech(name: str = "two_cities.wav") -> Path:
    """Where a recording of speech lies: 44 s, 48 kHz, mono."""
    try:
        files = importlib.metadata.files("moonshine-voice") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs pip install 'celerypipe[demo]'")
    (found,) = [Path(str(file.locate())) for file in files if file.name == name]
    return found


def write_wave(path: Path, samples: Any, rate: int = 16000) -> Path:
    """Write samples from -1 to 1, shape ``(samples,)`` or ``(samples, channels)``, in 16 bits; return the path."""
    samples = np.asarray(samples)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def tone(seconds: float, rate: int = 16000, pitch: float = 440.0) -> Any:
    """A sine."""
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


def word_errors(found: str, said: str) -> float:
    """Words to insert, delete or replace, for each word that was said (Levenshtein over words)."""
    ours, theirs = (re.sub(r"[^a-z' ]", " ", text.lower()).split() for text in (found, said))
    row = list(range(len(ours) + 1))
    for count, word in enumerate(theirs, start=1):
        row, above = [count], row
        for index, other in enumerate(ours, start=1):
            row.append(min(row[-1] + 1, above[index] + 1, above[index - 1] + (word != other)))
    return row[-1] / len(theirs)
