"""What an activation says of a failure, read where its runner hears of it, and the error that this is there."""

from __future__ import annotations

from celerypipe.errors import ConfigError, NodeError, NodeFailed, NodeTimeout, RemoteTraceback, WorkerLost

ERRORS: dict[str, type[NodeError]] = {
    "failed": NodeFailed,
    "timeout": NodeTimeout,
    "lost": WorkerLost,
    "codec": NodeFailed,
}


def error_of(
    node: str, kind: str, text: str, traceback: str, *, worker: str, says: str, message_id: str = ""
) -> NodeError | ConfigError:
    """Return the error of a failure at a node; ``worker``: where it happened, ``says``: who tells of it."""
    prefix = "" if text.startswith(f"{node}:") else f"{node}: "
    if kind == "config":
        return ConfigError(f"{prefix}{text} (says {says})")
    error_class = ERRORS.get(kind, NodeFailed)
    error = error_class(f"{prefix}{text}", node=node, message_id=message_id, worker=worker, remote_traceback=traceback)
    if traceback:
        error.__cause__ = RemoteTraceback(traceback)
    return error
