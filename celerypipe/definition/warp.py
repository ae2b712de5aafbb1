"""How a warped node runs: the keys of ``warp_configuration``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from celerypipe.definition.names import wrong_environment, wrong_queue
from celerypipe.definition.shape import Flag, Inside, Positive, Seconds, SecondsOrZero, Shape, Whole, fail

#: For editors and the reference, as SECONDS is.
MESSAGES: dict[str, Any] = {"unit": "messages"}
#: The largest window and batch, and the most slots that one node asks for: each is a key or an object somewhere.
MOST_IN_FLIGHT, MOST_SLOTS = 65_536, 4_096


def _queue(value: str) -> str:
    return fail(complaint) if (complaint := wrong_queue(value)) else value


def _environment(value: str) -> str:
    return fail(complaint) if (complaint := wrong_environment(value)) else value


class BatchLimits(Shape):
    """How many messages a node gets in one call."""

    foreign: ClassVar = dict.fromkeys(("timeout", "window", "parallel", "linger"), 'is written beside "batch"')

    size: Positive = Field(
        1,
        le=MOST_IN_FLIGHT,
        description="The largest number of messages in one call. Above 1 the node needs update_batch.",
        json_schema_extra=MESSAGES,
        examples=[8],
    )
    wait: SecondsOrZero = Field(0.0, description="How long to wait for a batch to fill.", examples=[0.05])


#: What a node has beside its configuration and its warp_configuration, and these do not have.
NODE_KEYS = ("sync", "auto_dump", "warped", "on_error", "console", "cache")
#: One message at a time; asked for with every message that is sent.
ALONE = BatchLimits(size=1, wait=0.0)


class WarpConfiguration(Shape, init=False):
    """How a warped node runs: on which queue, how many messages at a time, for how long."""

    queue: Annotated[str, AfterValidator(_queue)] | None = Field(
        None,
        description="The Celery queue. Default: the last part of the mark's module (tasks.gpu.Detect: gpu).",
        examples=["gpu"],
    )
    environment: Annotated[str, AfterValidator(_environment)] | None = Field(
        None,
        description="The environment of the queue's list that it runs in: [environments.NAME] in "
        "worker_configs/QUEUE.toml. Its workers are started with -Q QUEUE+NAME.",
        examples=["asr"],
    )
    timeout: Seconds | None = Field(None, description="The same as the node's timeout.", examples=[60])
    retries: Whole | None = Field(None, description="The same as the node's retries.", examples=[2])
    backoff: SecondsOrZero = Field(
        0.5, description="The pause before the first retry. It doubles with each further retry.", examples=[1]
    )
    window: Positive = Field(
        64,
        le=MOST_IN_FLIGHT,
        description="The largest number of messages that are sent and not yet answered; the source waits then.",
        json_schema_extra=MESSAGES,
        examples=[256],
    )
    parallel: Positive | None = Field(
        None,
        le=MOST_SLOTS,
        description="The largest number of worker processes or threads that run the node at the same time. "
        "Default: all of the queue's workers; a stateful node: 1.",
        examples=[4],
    )
    batch: Annotated[BatchLimits, Inside] | None = Field(
        None,
        description="Several messages in one call, for a node that has update_batch.",
        examples=[{"size": 8, "wait": 0.05}],
    )
    linger: SecondsOrZero = Field(
        0.5, description="How long a worker waits for the next message before its Celery task ends.", examples=[2]
    )
    slice: Seconds = Field(
        0.2, description="How long a worker runs one node while other nodes wait for that worker.", examples=[1]
    )
    term: Seconds = Field(
        10.0, description="How long one Celery task goes on. Then a new task follows, in its turn.", examples=[30]
    )
    ordered: Flag = Field(True, description="Results leave in the order in which the messages came.", examples=[False])
    pinned: Flag = Field(
        False,
        description="Keep a stateful node in one process of one worker for the whole run, without snapshots.",
        examples=[True],
    )
    compression: Literal["none", "lz4", "zstd"] = Field(
        "none",
        description="Compress payloads above 64 KiB that go through Redis; for networks slower than 1 Gbit/s.",
        examples=["zstd"],
    )
    on_no_worker: Literal["wait", "fail", "local"] = Field(
        "wait", description="If no worker serves the queue: wait, fail, or run the node here.", examples=["fail"]
    )

    @property
    def batches(self) -> BatchLimits:
        """What ``batch`` says; without it one message at a time."""
        return self.batch or ALONE

    foreign: ClassVar = {
        **dict.fromkeys(NODE_KEYS, 'is a key of the node; write it beside "warp_configuration"'),
        **dict.fromkeys(
            ("grpc_host", "grpc_port"),
            'is juturna\'s; there is no service to address here: write "queue": "<name>" instead '
            "and start `celery -A celerypipe worker -Q <name>` on the other machine",
        ),
    }
