"""What a machine is and what of it is in use, as its own system tells: cores, memory, GPUs."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

import msgspec
from celery.utils.sysinfo import cpu_budget

from celerypipe.process.memory import memory_here


class Gpu(msgspec.Struct, frozen=True):
    """A GPU: memory in bytes; ``busy``: per cent of the last moment in which it computed."""

    name: str
    memory: int
    memory_used: int
    busy: int


class Machine(msgspec.Struct, frozen=True):
    """A machine, or what a container may have of one: memory in bytes; ``load``: processes that ran or wanted to."""

    cores: float
    memory: int
    memory_used: int
    load: float
    gpus: tuple[Gpu, ...] = ()


def machine_now(gpus: Gpus) -> Machine:
    """Look at this one."""
    budget = cpu_budget()
    cores = float(min(budget.available, budget.quota or budget.available))
    memory, used = memory_here()
    return Machine(cores, memory, used, round(os.getloadavg()[0], 2), gpus.now())


class Gpus:
    """The GPUs of this machine, by NVIDIA's library where that is installed; without it there are none."""

    def __init__(self) -> None:
        self._library: Any = None
        self._handles: Sequence[Any] = ()
        try:
            library = importlib.import_module("pynvml")
            library.nvmlInit()
            count = library.nvmlDeviceGetCount()
            self._handles = [library.nvmlDeviceGetHandleByIndex(place) for place in range(count)]
            self._library = library
        except ImportError:  # nvidia-ml-py is not installed
            return
        except Exception as error:  # the library has one class of errors, known only once it is there
            if type(error).__module__ != "pynvml":
                raise

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._handles)

    def now(self) -> tuple[Gpu, ...]:
        """Look at them."""
        return tuple(map(self._look, self._handles))

    def _look(self, handle: Any) -> Gpu:
        library = self._library
        name = library.nvmlDeviceGetName(handle)
        memory = library.nvmlDeviceGetMemoryInfo(handle)
        try:
            busy = int(library.nvmlDeviceGetUtilizationRates(handle).gpu)
        except library.NVMLError:  # some do not tell
            busy = 0
        return Gpu(name.decode() if isinstance(name, bytes) else str(name), int(memory.total), int(memory.used), busy)
