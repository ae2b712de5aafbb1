"""An overview as families of metrics, named as Prometheus wants them: base units, ``_total`` for what only grows.

Labels are names that users gave: of pipelines, nodes, queues and workers. Nothing is labelled by run or message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from celerypipe.definition.names import LONGEST
from celerypipe.mailbox.counts import BOUNDS, OUTCOMES, Counted
from celerypipe.web.overview import Load, Overview, RedisMemory

NODE = ("pipeline", "node", "queue")
#: What a time of a message is → what is said of it.
TIMES = {
    "wait": "Seconds that a message waited for a worker.",
    "run": "Seconds that a node took to process a message.",
    "transfer": "Seconds that a message and its result spent in transfer.",
}


class Exporter(Collector):
    """Reads an overview whenever somebody asks for metrics; None: Redis is away."""

    def __init__(self, take: Callable[[], Overview | None]) -> None:
        self._take = take

    def describe(self) -> Iterable[Metric]:
        """Nothing: it would have to ask Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return all metrics."""
        found = self._take()
        yield _gauge("redis_up", "1 if Redis answers, 0 if not; then there are no other metrics.", found is not None)
        if found is not None:
            yield from families(found)


def registry_of(take: Callable[[], Overview | None]) -> CollectorRegistry:
    """Return what prometheus_client asks for metrics."""
    registry = CollectorRegistry()
    registry.register(Exporter(take))
    return registry


def families(found: Overview) -> Iterator[Metric]:
    """Return all metrics but the one that says whether there are any."""
    yield from _messages({(_label(one.pipeline), _label(one.node), _label(one.queue)): one for one in found.counted})
    yield from _queues({(_label(name),): load for name, load in found.queues.items()})
    up: dict[tuple[str, ...], float] = {
        (_label(worker.name or f"{worker.host}.{worker.pid}"), _label(queue), _label(worker.host)): 1
        for worker in found.workers
        for queue in worker.queues
    }
    text = "1 for each live worker and each of its queues; a worker that ended is not listed."
    yield _labelled(GaugeMetricFamily, "worker_up", text, ("worker", "queue", "host"), up)
    if found.cache is not None:
        cache = found.cache
        yield _gauge("cache_items", "Results in the result cache, and the large payloads of results.", cache.items)
        yield _gauge("cache_bytes", "Bytes in the result cache.", cache.bytes)
        yield _counter("cache_hits", "Results that were found in the result cache.", cache.hits)
        yield _counter("cache_misses", "Results that were not in the result cache.", cache.misses)
        yield _counter("cache_evicted", "Results that were removed to make room.", cache.evicted)
    if found.memory is not None:
        yield from _redis(found.memory)


def _messages(counted: Mapping[tuple[str, ...], Counted]) -> Iterator[Metric]:
    outcomes = {(*whose, what): one.outcomes.get(what, 0) for whose, one in counted.items() for what in OUTCOMES}
    text = "Messages sent to a node that runs on workers, by outcome; each message counts once."
    yield _labelled(CounterMetricFamily, "messages", text, (*NODE, "outcome"), outcomes)
    text = "Failed attempts that were tried again."
    yield _labelled(CounterMetricFamily, "retries", text, NODE, {whose: one.retried for whose, one in counted.items()})
    for time, text in TIMES.items():
        family = HistogramMetricFamily(f"celerypipe_{time}_seconds", text, labels=NODE)
        for whose, one in counted.items():
            family.add_metric(whose, list(_cumulated(one.buckets.get(time, {}))), one.spent.get(time, 0.0))
        yield family


def _cumulated(buckets: Mapping[str, int]) -> Iterator[tuple[str, float]]:
    """Each bucket counts all that was not above it."""
    seen = 0
    for upper in (*map(repr, BOUNDS), "+Inf"):
        seen += buckets.get(upper, 0)
        yield upper, seen


def _queues(loads: Mapping[tuple[str, ...], Load]) -> Iterator[Metric]:
    told = {
        "messages": "Messages that wait for a worker.",
        "in_flight": "Messages that a live worker has taken.",
        "oldest_seconds": "Age of the oldest of these messages in seconds; 0 if there is none.",
        "slots": "Messages that the live workers can process at the same time.",
        "workers": "Live workers.",
    }
    for what, text in told.items():
        values = {name: getattr(load, what) for name, load in loads.items()}
        yield _labelled(GaugeMetricFamily, f"queue_{what}", text, ("queue",), values)


def _redis(memory: RedisMemory) -> Iterator[Metric]:
    yield _gauge("redis_memory_bytes", "Bytes that Redis uses.", memory.used)
    yield _gauge("redis_memory_max_bytes", "Bytes that Redis may use; 0: there is no limit.", memory.most)
    yield _gauge("redis_clients", "Connections to Redis.", memory.clients)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"celerypipe_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"celerypipe_{name}", text, value=float(value))


def _labelled(
    kind: type[Any], name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]
) -> Metric:
    family: Metric = kind(f"celerypipe_{name}", text, labels=labels)
    for words, value in values.items():
        family.add_metric(words, value)  # type: ignore[attr-defined]  # both kinds have it
    return family


def _label(name: str) -> str:
    """A name as a label: what runners and workers say is at most so long; a stranger may say anything."""
    return name.encode("utf-8", "replace").decode()[:LONGEST]
