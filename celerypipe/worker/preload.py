"""Nodes that are warm before the first message: those that the one who starts a worker names, with configurations."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celerypipe.catalogue.catalogue import Listing
from celerypipe.codec.identity import identity
from celerypipe.errors import CelerypipeError, ConfigError, did_you_mean
from celerypipe.worker.activation.place import Worker

logger = logging.getLogger("celerypipe.worker")

#: Says which, as JSON: [[mark, configuration], …].
VARIABLE = "CELERYPIPE_PRELOAD"


@dataclass(frozen=True, slots=True)
class Preload:
    """A node to be warm, and its configuration."""

    listing: Listing
    configuration: dict[str, Any]


def preloads(environment: Mapping[str, str], listings: Mapping[str, Listing]) -> list[Preload]:
    """Return those that the environment names; :class:`ConfigError` for one that is not served or does not fit."""
    text = environment.get(VARIABLE, "")
    if not text:
        return []
    try:
        named = [(str(mark), dict(configuration)) for mark, configuration in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise ConfigError(f'{VARIABLE}: {error}; write [["tasks.gpu.ReadText", {{"device": "auto"}}]]') from None
    found = []
    for mark, configuration in named:
        listing = listings.get(mark)
        if listing is None:
            raise ConfigError(
                f"preload: this worker serves no node {mark!r}{did_you_mean(mark, listings)}; add its module to "
                "`imports` in worker_configs/QUEUE.toml"
            )
        if wrong := listing.complaints(configuration):
            raise ConfigError(f"preload: {mark}: {'; '.join(map(str, wrong))}")
        found.append(Preload(listing, configuration))
    return found


def warm(worker: Worker, wanted: list[Preload]) -> None:
    """Warm them in this process; :class:`CelerypipeError` says which failed."""
    shelf = worker.place().shelf
    for one in wanted:
        begun = time.monotonic()
        shelf.preload(one.listing, f"{one.listing.mark} {identity(one.configuration)}", one.configuration)
        logger.info("%s is warm, after %.1f s", one.listing.mark, time.monotonic() - begun)


def warm_in_child(worker: Worker, wanted: list[Preload]) -> None:
    """The same in a process of a pool, which goes on: its messages are told what is wrong, and others may be fine."""
    try:
        warm(worker, wanted)
    except CelerypipeError:
        logger.exception("a node that was to be warm before the first message is not")
