"""Which GPU each worker of a host sees: one of its own, as long as there are enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from celerypipe.errors import ConfigError
from celerypipe.host.allowed import ALL_GPUS, Allowed

#: The driver has a folder here for each GPU.
_DRIVER = Path("/proc/driver/nvidia/gpus")
_VARIABLE = "CUDA_VISIBLE_DEVICES"


def devices_by_queue(
    allowed: Allowed, seen: int, environment: Mapping[str, str], driver: Path = _DRIVER
) -> dict[str, Sequence[str]]:
    """Return the devices of each queue whose workers have some; ``seen``: how many GPUs NVIDIA's library tells of.

    :class:`ConfigError`: a queue is to have all GPUs, and there is none.
    """
    if _VARIABLE in environment:  # a scheduler or a container gave this host a part of them
        here = [each.strip() for each in environment[_VARIABLE].split(",") if each.strip() not in ("", "-1")]
    else:
        here = [*map(str, range(seen or (sum(1 for _ in driver.iterdir()) if driver.is_dir() else 0)))]
    found: dict[str, Sequence[str]] = {}
    for queue in allowed.startable:
        table = allowed.named(queue)
        rule = allowed.queues[table]
        if rule.devices == ALL_GPUS and not here:
            why = f"{_VARIABLE} of this host names none" if _VARIABLE in environment else "this machine shows none"
            raise ConfigError(
                f'{allowed.path}: [queues.{table}] devices = "{ALL_GPUS}": {why}; see what nvidia-smi says, or write '
                'which ones: devices = ["0", "1"]'
            )
        if rule.devices:
            found[queue] = here if rule.devices == ALL_GPUS else [*map(str, rule.devices)]
    return found


def least_taken(devices: Sequence[str], taken: Iterable[str]) -> str:
    """Return the device that the fewest workers have, the first of several; empty if there are no devices."""
    times = Counter(taken)
    return min(devices, key=lambda each: times[each], default="")


def shown_only(device: str) -> dict[str, str]:
    """Return the environment of a worker that sees only this device, counted as nvidia-smi does."""
    return {_VARIABLE: device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if device else {}
