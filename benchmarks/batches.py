"""Micro-batches: the same node with one message at a time and with up to thirty-two at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.figures import Sample, beside
from benchmarks.nodes import SIZE, matrix
from benchmarks.stage import Stage
from benchmarks.traffic import FLIGHT, in_a_row, in_flight
from celerypipe import Runner
from celerypipe.errors import DefinitionError

BATCH = {"size": 32, "wait": 0.005}
MESSAGES = 1200


def batches(stage: Stage) -> Iterator[Sample]:
    """A row of floats times a matrix, message by message and many rows in one product."""
    row = np.random.default_rng(2).integers(-4, 5, SIZE).astype(np.float32)
    wanted, runner, count = row @ matrix(), Runner(stage.url), stage.count(MESSAGES, 200)
    where = f"1 node, a row of {SIZE:,} float32 times a {SIZE:,} × {SIZE:,} matrix"

    def rate(warp: dict[str, object]) -> float:
        pipeline = in_a_row("one", mark="benchmarks.nodes.Multiply", warp=warp)
        return in_flight(runner, pipeline, row, count, 100, wanted=wanted)

    single = rate({})
    yield Sample(f"{where}, batch size 1", FLIGHT, "/s", single)
    try:
        together = rate({"batch": BATCH})
    except DefinitionError as refusal:
        stage.not_yet.append(f"batch size {BATCH['size']}: {refusal}")
        return
    yield beside(Sample(f"{where}, batch size {BATCH['size']}", FLIGHT, "/s", together), "batch size 1", single)
