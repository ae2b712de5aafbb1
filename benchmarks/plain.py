"""Plain Celery, the yardstick: an application of its own, a task that returns what it gets, its usual settings."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from celery import Celery

from celerypipe.celery.broker import kombu_form
from celerypipe.redis.address import DEFAULT_ADDRESS
from celerypipe.redis.url import read_address


def plain_address(url: str) -> str:
    """The same server as kombu writes it, in a database where nothing of celerypipe lives."""
    return str(kombu_form(replace(read_address(url), database=1))["url"])


def make_app(url: str) -> Any:
    """An application with Redis as broker and as result backend, and no other setting."""
    address = plain_address(url)
    made = Celery("plain", broker=address, backend=address, set_as_current=False)
    made.task(_same, name="same")
    return made


def _same(text: str) -> str:
    return text


app = make_app(os.environ.get("BENCHMARKS_PLAIN_URL", DEFAULT_ADDRESS.url))
