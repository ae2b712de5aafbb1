"""What a worker is told from afar does what its user means, or is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from celerypipe.worker.control import BOUNDS


def consumer(pool: str, *, scales: bool = False) -> Any:
    """Celery's consumer, as far as it is looked at."""
    can_grow = {"grow": None} if pool == "prefork" else {}
    controller = SimpleNamespace(autoscaler=object() if scales else None)
    return SimpleNamespace(pool=SimpleNamespace(num_processes=2, **can_grow), controller=controller)


@pytest.mark.parametrize(
    ("name", "pool", "given", "why"),
    [
        ("pool_grow", "prefork", {}, ""),
        ("pool_grow", "prefork", {"n": -1}, "give a whole number above 0"),
        ("pool_grow", "threads", {}, "only a prefork pool can grow"),
        ("pool_shrink", "prefork", {"n": 1}, ""),
        ("pool_shrink", "prefork", {"n": 2}, "no process would be left"),
        ("pool_shrink", "solo", {}, "only a prefork pool can grow"),
        ("revoke", "threads", {"task_id": "t"}, ""),
        ("revoke", "prefork", {"task_id": "t", "terminate": True, "signal": "SIGTERM"}, ""),
        ("revoke", "prefork", {"task_id": "t", "terminate": True, "signal": "KILL"}, "SIGKILL would count as"),
        ("terminate", "prefork", {"task_id": "t", "signal": "nonsense"}, "'nonsense' is no signal"),
        ("terminate", "prefork", {"task_id": "t", "signal": "SIGNONSENSE"}, "'SIGNONSENSE' is no signal"),
        ("terminate", "prefork", {"task_id": "t", "signal": 4711}, "4711 is no signal"),
        ("terminate", "threads", {"task_id": "t", "signal": "TERM"}, "end a run with `celerypipe cancel RUN`"),
        ("autoscale", "prefork", {"max": 3}, "was started without --autoscale"),
    ],
)
def test_what_would_cost_messages_is_refused(name: str, pool: str, given: dict[str, Any], why: str) -> None:
    found = BOUNDS[name](consumer(pool), given)
    assert why in found
    assert bool(found) == bool(why)


@pytest.mark.parametrize(("limits", "fine"), [((3, 1), True), ((1, 3), False), ((0, 0), False), ((2, None), True)])
def test_a_pool_that_scales_keeps_a_process(limits: tuple[int, int | None], fine: bool) -> None:
    found = BOUNDS["autoscale"](consumer("prefork", scales=True), {"max": limits[0], "min": limits[1]})
    assert bool(found) != fine
