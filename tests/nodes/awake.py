"""Imported by a worker of prefork, whose log then has a line for each time that Celery's pool sleeps for long."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import billiard.pool
from celery.concurrency import asynpool, prefork


def _sleep(seconds: float) -> None:
    if seconds >= 0.5:
        os.write(2, f"it sleeps for {seconds} s\n".encode())
    time.sleep(seconds)


asynpool.sleep = _sleep
billiard.pool.time = prefork.time = SimpleNamespace(**{**vars(time), "sleep": _sleep})
