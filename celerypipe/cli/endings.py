"""How a command ends: its exit status."""

from __future__ import annotations

from enum import IntEnum

from celerypipe.errors import CelerypipeError, ConfigError, DefinitionError, NoWorker, RedisUnavailable, RunCancelled


class Ending(IntEnum):
    """Exit statuses: 69 and 130 as they are everywhere on Unix (``EX_UNAVAILABLE``; 128 and the number of SIGINT)."""

    DONE = 0
    FAILED = 1
    WRONG = 2
    DEAD_LETTERS = 3
    UNAVAILABLE = 69
    INTERRUPTED = 130


#: What ``celerypipe --help`` says of them.
MEANINGS = {
    Ending.DONE: "done; with --fail-on-skip only if no message was skipped",
    Ending.FAILED: "the run failed, or was cancelled",
    Ending.WRONG: "the command line, the pipeline, the settings or a node's arguments are wrong",
    Ending.DEAD_LETTERS: "done, but for messages that were kept as dead letters",
    Ending.UNAVAILABLE: "Redis is not there or refuses this client, or a queue has no worker",
    Ending.INTERRUPTED: "stopped by Ctrl-C",
}

#: What keeps a command from beginning; its text needs no name of an error before it.
WRONG_BEFORE_RUNNING = (DefinitionError, ConfigError, RedisUnavailable)


def ending_of(error: CelerypipeError) -> Ending:
    """Return how a command ends over an error."""
    if isinstance(error, RunCancelled) and error.signal == "SIGINT":
        return Ending.INTERRUPTED
    if isinstance(error, RedisUnavailable | NoWorker):
        return Ending.UNAVAILABLE
    return Ending.WRONG if isinstance(error, WRONG_BEFORE_RUNNING) else Ending.FAILED
