"""How much noise bears the estimate of a chirp? 100 inputs, twice: computed, and remembered. Run it from the root.

Without ``CELERYPIPE_REDIS_URL`` it starts a private Redis and a worker with two processes.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # where tasks/ is

import numpy as np  # noqa: E402  # after the line that finds tasks
from plot import plot  # noqa: E402
from recordings import RATE, cases  # noqa: E402

from celerypipe import Embedded, Runner, Settings  # noqa: E402
from tasks.spectra import chirps  # noqa: E402

OUT = Path("examples/spectra/out")
Estimates = list[np.ndarray[Any, np.dtype[np.float64]]]


def one_pass(redis: str, inputs: Sequence[Any]) -> tuple[Estimates, float, Counter[str]]:
    """Estimate all inputs; return what came out, the seconds that it took, and how each call ended."""
    with Runner(redis=redis) as runner:
        began = time.perf_counter()
        calls = [runner.submit(chirps, each, RATE) for each in inputs]
        estimates = [call.result(timeout=120) for call in calls]
        seconds = time.perf_counter() - began
    return estimates, seconds, Counter(call.state for call in calls)


def redis_for_the_study(say: Callable[[str], None]) -> AbstractContextManager[str]:
    """The Redis that the environment names, or a private one with a worker."""
    found = Settings.from_environment().redis.address
    return nullcontext(found.url) if found else Embedded(queues={"spectra": 2}, on_event=say)


def main(count: int = 100) -> None:
    """Run the study twice, say how long it took, draw it; ``count``: so many of its inputs."""
    studied = cases()[-count:]
    inputs = [case.recordings(seed) for seed, case in enumerate(studied)]
    with redis_for_the_study(print) as redis:
        first, computing, states = one_pass(redis, inputs)
        print(f"first run:  {computing:7.3f} s, {states['cached']} of {len(inputs)} from the cache")
        second, remembering, states = one_pass(redis, inputs)
        print(f"second run: {remembering:7.3f} s, {states['cached']} of {len(inputs)} from the cache")
    if not all(np.array_equal(one, other) for one, other in zip(first, second, strict=True)):
        raise SystemExit("the second run is not the first one")
    print(f"the second run took 1/{computing / remembering:.0f} of the time, and every number is the same")
    errors = [estimate[:, 1] - case.slope for case, estimate in zip(studied, second, strict=True)]
    print(f"drawn: {plot(studied, inputs, errors, OUT / 'spectra.png')}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
