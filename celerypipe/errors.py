"""Every error celerypipe raises, in one tree.

::

    CelerypipeError
    ├── DefinitionError          the pipeline is wrong before it runs; carries every complaint (exit status 2)
    ├── ConfigError              settings, a worker config or a node's arguments are wrong (exit status 2)
    │   ├── EnvironmentFailed    the environment of a worker cannot be built
    │   ├── UnknownMark          no node class answers to this mark
    │   └── UnknownRun           no run of this id goes on
    ├── CodecError               bytes that are no message, or a payload that cannot become bytes
    │   └── BadSignature         bytes that nobody with our keys signed for the place they are in
    ├── HostError                a host is gone, refuses, or its workers do not come up (exit status 1)
    ├── RedisUnavailable         Redis cannot be reached, or refuses us (exit status 69)
    ├── RunError                 a run that could not finish (exit status 1)
    │   ├── RunCancelled         somebody stopped it: Ctrl-C twice (exit status 130), ``Runner.cancel``
    │   └── DeadlineExceeded     the pipeline's ``deadline`` passed
    └── NodeError                one node failed on one message (exit status 1)
        ├── NodeFailed           its ``update`` raised, or returned something that is no message
        ├── NodeTimeout          it took longer than its ``timeout``
        ├── NoWorker             no live worker serves its queue (exit status 69)
        │   └── CircuitOpen      one message after another waited there in vain, so this one was not sent
        └── WorkerLost           its process died on the message: a signal, out of memory, ``os._exit``
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class CelerypipeError(Exception):
    """The base class of all errors of celerypipe. ``report``: the report of the run that the error ended."""

    report: Any = None


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong with a definition: where, and what to do about it.

    ``place`` is a path such as ``pipeline.nodes[1].warp_configuration.timeout``.
    """

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


class DefinitionError(CelerypipeError):
    """A pipeline definition that cannot run; ``complaints`` lists everything that is wrong with it."""

    def __init__(self, complaints: Iterable[Complaint]) -> None:
        self.complaints = tuple(complaints)
        super().__init__("\n".join(str(complaint) for complaint in self.complaints))


class ConfigError(CelerypipeError):
    """Settings, a worker config or the arguments of a node are wrong."""


class EnvironmentFailed(ConfigError):
    """The environment of a worker cannot be built."""


class UnknownMark(ConfigError):
    """There is no node class for a mark."""


class UnknownRun(ConfigError):
    """There is no active run of this id; ``runs`` are the active ones: id → name of the pipeline."""

    def __init__(self, run_id: str, runs: Mapping[str, str]) -> None:
        self.runs = dict(runs)
        shown = ", ".join(f"{each} ({name})" for each, name in runs.items())
        cure = f"; there are {shown}" if shown else "; no run with warped nodes is active in this Redis"
        super().__init__(f"there is no run {run_id!r}{did_you_mean(run_id, runs)}{cure}")


class CodecError(CelerypipeError):
    """Bytes that are not a message, or a payload that cannot be written as bytes."""


class BadSignature(CodecError):
    """Bytes that nobody with our keys signed for the place they are in: unsigned, altered, or moved there."""


class RedisUnavailable(CelerypipeError):
    """Redis cannot be reached at the given address, or refuses this client."""


class HostError(CelerypipeError):
    """A host is gone, refuses what it was asked for, or its workers do not come up."""


class RunError(CelerypipeError):
    """A run that could not finish."""


class RunCancelled(RunError):
    """A run that was stopped before it was done; ``signal`` is the name of the signal that stopped it, if one did."""

    def __init__(self, text: str, *, signal: str = "") -> None:
        super().__init__(text)
        self.signal = signal


class DeadlineExceeded(RunError):
    """A run that was not done when the ``deadline`` of its pipeline passed."""


class NodeError(CelerypipeError):
    """One node failed on one message.

    ``node`` and ``message_id`` say where; ``worker`` names the machine and process when the node ran elsewhere;
    ``remote_traceback`` is the text of the traceback over there (empty when there is none). ``times``: seconds that the
    message waited for its worker and that the node ran, where that is known. ``console``: what it printed until then, a
    :class:`celerypipe.Console`, if that was asked for.
    """

    kind = "error"
    times: tuple[float, float] = (0.0, 0.0)
    console: Any = None

    def __init__(
        self, text: str, *, node: str = "", message_id: str = "", worker: str = "", remote_traceback: str = ""
    ) -> None:
        super().__init__(text)
        self.node = node
        self.message_id = message_id
        self.worker = worker
        self.remote_traceback = remote_traceback

    @property
    def place(self) -> str:
        """Which message it was, and at which worker, as far as that is known: ``message 4f1c…, worker gpubox-1, …``."""
        facts = {"message": self.message_id, "worker": self.worker}
        return ", ".join(f"{what} {fact}" for what, fact in facts.items() if fact)


class NodeFailed(NodeError):
    """``update`` raised, or returned something that is no message."""

    kind = "failed"


class NodeTimeout(NodeError):
    """A node took longer than its ``timeout``; the text says how much of it was waiting and how much running."""

    kind = "timeout"


class NoWorker(NodeError):
    """No live worker serves the queue of a warped node."""

    kind = "no_worker"


class CircuitOpen(NoWorker):
    """Several messages in a row of its queue got no answer, so this one failed without being sent."""

    kind = "circuit"


class WorkerLost(NodeError):
    """The process that ran ``update`` died on this message, more than once."""

    kind = "lost"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest known word, or an empty string."""
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is nearest, or an empty string; for a word without dots also one that ends with it."""
    words = list(known)
    longer = sorted(each for each in words if word and each.endswith(f".{word}"))
    return next(iter([*difflib.get_close_matches(word, words, n=1, cutoff=0.6), *longer]), "")


class RemoteTraceback(Exception):  # it is no error of its own, it shows where one came from
    """Stands as ``__cause__`` of an error that happened elsewhere; its text is the traceback over there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text}"
