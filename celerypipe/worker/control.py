"""Celery's remote control, as far as it means something else here: what Flower's buttons and ``celery control`` send.

A task of Celery works on many messages, and runners know of a worker's queues by its presence. So what counts or ends
tasks, or moves a worker from one queue to another, is refused with what to do instead; the rest is Celery's own.
"""

from __future__ import annotations

import logging
import signal as signals
from collections.abc import Callable
from typing import Any

from celery.platforms import signals as named
from celery.worker.control import Panel, control_command

from celerypipe.worker import vocabulary

logger = logging.getLogger("celerypipe.worker")

#: What no worker does, and why.
REFUSED = {
    "rate_limit": vocabulary.REFUSED["task_default_rate_limit"],
    "time_limit": vocabulary.REFUSED["task_time_limit"],
    "add_consumer": "a worker serves the queues it was started for, with their modules; start another one: "
    "celerypipe worker -Q QUEUE",
    "cancel_consumer": "a worker serves its queues for as long as it lives, and runs wait for it; shut it down: "
    "it finishes what it is at",
    "pool_restart": f"{vocabulary.REFUSED['worker_pool_restarts']} (SIGHUP)",
}
TERMINATE = "a task works on many messages: end a run with `celerypipe cancel RUN`"


def install() -> None:
    """Take the place of Celery's commands in this process."""
    for name, why in REFUSED.items():
        control_command(name=name)(_refusing(name, why))
    for name in ("pool_grow", "pool_shrink", "autoscale", "revoke", "terminate"):
        control_command(name=name)(_bounded(name, Panel.data[name]))


def refuse(name: str, why: str) -> dict[str, str]:
    """Say no, in the log too: not everybody who asks waits for an answer."""
    logger.warning("refused %s: %s", name, why)
    return {"error": f"{name} is refused: {why}"}


def _refusing(name: str, why: str) -> Callable[..., dict[str, str]]:
    def refusing(_state: Any, **_: Any) -> dict[str, str]:
        return refuse(name, why)

    return refusing


def _bounded(name: str, stock: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(state: Any, **given: Any) -> Any:
        why = BOUNDS[name](state.consumer, given)
        return refuse(name, why) if why else stock(state, **given)

    bounded.__doc__ = stock.__doc__
    return bounded


def _wrong_growth(consumer: Any, given: dict[str, Any]) -> str:
    if not _is_prefork(consumer):
        return "only a prefork pool can grow or shrink; start another worker, or this one with another -c"
    return "" if _is_some(given.get("n", 1)) else "give a whole number above 0"


def _wrong_shrinking(consumer: Any, given: dict[str, Any]) -> str:
    if why := _wrong_growth(consumer, given):
        return why
    left = consumer.pool.num_processes - given.get("n", 1)
    if left < 1 and consumer.controller.autoscaler is None:
        return "no process would be left, and runs would wait for this worker; shut it down instead"
    return ""


def _wrong_scale(consumer: Any, given: dict[str, Any]) -> str:
    if consumer.controller.autoscaler is None:
        return "this worker was started without --autoscale MAX,MIN"
    most, least = given.get("max"), given.get("min")
    fine = all(number is None or _is_some(number) for number in (most, least))
    return "" if fine and (most is None or least is None or least <= most) else "give MAX and MIN, 1 <= MIN <= MAX"


def _wrong_end(consumer: Any, given: dict[str, Any]) -> str:
    if not given.get("terminate"):
        return ""  # a task that is thrown away is sent again, for as long as there is work
    if not _is_prefork(consumer):
        return TERMINATE
    asked = given.get("signal") or "TERM"
    try:
        sent = signals.Signals(named.signum(asked))
    except (AttributeError, TypeError, ValueError):
        return f"{asked!r} is no signal; {TERMINATE}"
    return "" if sent == signals.SIGTERM else f"{sent.name} would count as a fault of its message; {TERMINATE}"


def _is_prefork(consumer: Any) -> bool:
    return hasattr(consumer.pool, "grow")


def _is_some(number: Any) -> bool:
    return isinstance(number, int) and number >= 1


BOUNDS: dict[str, Callable[[Any, dict[str, Any]], str]] = {
    "pool_grow": _wrong_growth,
    "pool_shrink": _wrong_shrinking,
    "autoscale": _wrong_scale,
    "revoke": _wrong_end,
    "terminate": lambda consumer, given: _wrong_end(consumer, {**given, "terminate": True}),
}
