"""The study of chirps, its numbers and its picture; the two runs of it are in tests/acceptance."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tasks.spectra import chirps
from tests.servers import ROOT
from tests.servers.extent import LONG


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "examples" / "spectra")
    return pytest.importorskip("recordings")


@pytest.mark.parametrize("slope", [-2000.0, *([0.0, 2500.0] if LONG else [])])
def test_a_chirp_that_is_loud_enough_is_found_as_well_as_can_be(recordings: ModuleType, slope: float) -> None:
    for decibels in (-6.0, 12.0):
        case = recordings.Case(1200.0, slope, decibels)
        found = chirps(case.recordings(1), recordings.RATE)
        assert found.shape == (recordings.TRIALS, 2)
        error = float(np.sqrt(np.mean((found[:, 1] - slope) ** 2)))
        assert 0.4 < error / recordings.bound(np.array(decibels)) < 2.5
        assert np.all(np.abs(found[:, 0] - 1200.0) < 3.0)


def test_the_inputs_are_a_hundred_and_the_same_every_time(recordings: ModuleType) -> None:
    cases = recordings.cases()
    assert len(set(cases)) == 100
    assert np.array_equal(cases[7].recordings(7), cases[7].recordings(7))
    assert not np.array_equal(cases[7].recordings(7), cases[7].recordings(8))


def test_the_picture_is_drawn(recordings: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = pytest.importorskip("plot")
    studied = recordings.cases()
    inputs = [case.recordings(number) for number, case in enumerate(studied)]
    errors = [np.full(recordings.TRIALS, 2.0) for _ in studied]
    assert set(plot.rms_by_noise(studied, errors).values()) == {2.0}
    path = plot.plot(studied, inputs, errors, tmp_path / "out" / "spectra.png")
    assert path.read_bytes().startswith(b"\x89PNG")
