"""The parts of a definition: nodes, links, and how a warped node runs. Frozen values, keys as juturna has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from celerypipe.contract.contract import MARK, Node, means_another, node_class
from celerypipe.contract.function import Options
from celerypipe.definition.cache import CacheDefinition as CacheDefinition  # part of a definition, asked for here
from celerypipe.definition.cache import CacheSchema, cache_of
from celerypipe.definition.names import wrong_name, wrong_queue
from celerypipe.definition.shape import (
    Flag,
    Inside,
    Location,
    Positive,
    Seconds,
    SecondsOrZero,
    Shape,
    Whole,
    fail,
    path,
    refuse,
)

#: The largest window and batch, and the most slots that one node asks for: each is a key or an object somewhere.
MOST_IN_FLIGHT, MOST_SLOTS = 65_536, 4_096


def _name(value: str) -> str:
    return fail(complaint) if (complaint := wrong_name(value)) else value


def _queue(value: str) -> str:
    return fail(complaint) if (complaint := wrong_queue(value)) else value


def _mark(value: str) -> str:
    if not MARK.fullmatch(value):
        fail(f"{value!r} is no mark; write a dotted path such as tasks.gpu.Detect, or a short name")
    return value


Name = Annotated[str, AfterValidator(_name)]


class Link(Shape, init=False):
    """From one node to another; ``("a", "b")`` does in Python."""

    source: str = Field(alias="from", description="The name of the node that sends.")
    target: str = Field(alias="to", description="The name of the node that receives.")
    full: Literal["block", "drop"] = Field(
        "block", description="When the receiver has no room: hold the sender up, or drop the message."
    )

    wanted: ClassVar = {"from": "write the name of the node that sends", "to": "write the name of the receiver"}

    @model_validator(mode="before")
    @classmethod
    def _of_pair(cls, data: Any) -> Any:
        return {"from": data[0], "to": data[1]} if isinstance(data, tuple) and len(data) == 2 else data

    def __str__(self) -> str:
        return f"{self.source} → {self.target}"


class BatchLimits(Shape):
    """How many messages a node takes at once."""

    foreign: ClassVar = dict.fromkeys(("timeout", "window", "parallel", "linger"), 'is written beside "batch"')

    size: Positive = Field(
        1, le=MOST_IN_FLIGHT, description="At most so many messages at once; above 1 the node needs update_batch."
    )
    wait: SecondsOrZero = Field(0.0, description="Seconds to wait for a batch to fill.")


#: What a node has beside its configuration and its warp_configuration, and these do not have.
NODE_KEYS = ("sync", "auto_dump", "warped", "on_error", "console", "cache")
#: What the whole pipeline has.
PIPELINE_KEYS = ("folder", "telemetry", "nodes", "links", "schedule", "deadline", "dead_letters")

#: One message at a time; asked for with every message that is sent.
ALONE = BatchLimits(size=1, wait=0.0)


class DeadLetterLimits(Shape, init=False):
    """How many dead letters are kept in the pipeline's folder; the oldest go first."""

    count: Positive = Field(10_000, description="At most so many.")
    bytes: Positive = Field(1024**3, description="At most so many bytes of all of them together.")
    age: Seconds = Field(30 * 86_400.0, description="Seconds after which one goes.")


class WarpConfiguration(Shape, init=False):
    """How a warped node runs: where, how many at a time, how long it may take."""

    queue: Annotated[str, AfterValidator(_queue)] | None = Field(
        None, description="The Celery queue; default: the last part of the mark's module (tasks.gpu.Detect: gpu)."
    )
    timeout: Seconds | None = Field(None, description="The same as the node's own timeout, in seconds.")
    retries: Whole | None = Field(None, description="The same as the node's own retries.")
    backoff: SecondsOrZero = Field(0.5, description="Seconds before the first retry; doubled for each further one.")
    window: Positive = Field(
        64, le=MOST_IN_FLIGHT, description="At most so many messages in flight; the source waits then."
    )
    parallel: Positive | None = Field(
        None,
        le=MOST_SLOTS,
        description="At most so many workers' slots at a time; default: all that the queue's workers have.",
    )
    batch: Annotated[BatchLimits, Inside] | None = Field(
        None, description="Several messages at once, for a node that has update_batch."
    )
    linger: SecondsOrZero = Field(0.5, description="Seconds a worker waits for another message before it lets go.")
    slice: Seconds = Field(0.2, description="Seconds a worker keeps at it while others wait for it.")
    term: Seconds = Field(10.0, description="Seconds after which a worker goes back to Celery in any case.")
    ordered: Flag = Field(True, description="Results leave in the order in which the messages came.")
    pinned: Flag = Field(
        False,
        description="A stateful node stays in one process of one worker for the whole run, and takes no snapshots.",
    )
    compression: Literal["none", "lz4", "zstd"] = Field(
        "none",
        description="Pack payloads above 64 KiB that go through Redis, to it and from it: where the network is slower "
        "than the processors.",
    )
    on_no_worker: Literal["wait", "fail", "local"] = Field(
        "wait", description="When no live worker serves the queue: wait, fail, or run the node here."
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


class NodeDefinition(Shape, init=False):
    """One node of a pipeline. In Python ``mark`` may be the class, or the function under ``@node``, itself."""

    model_config = ConfigDict(validate_by_name=False)

    name: Name = Field(description="Its name, unique in the pipeline.")
    type: Literal["source", "proc", "sink"] = Field(description="What it does: send, turn, receive messages.")
    mark: Annotated[str, AfterValidator(_mark)] = Field(
        description="Which class: a dotted path, or the short name of a built-in, installed or plugin node."
    )
    configuration: dict[str, Any] = Field(
        default_factory=dict, description='The arguments of the class; "$JT_ENV_NAME" stands for a variable.'
    )
    sync: str | None = Field(
        None,
        description="How several links in become one input: passthrough, local, zip, latest, key:<meta field>, "
        "within:<seconds>.",
    )
    auto_dump: Flag = Field(False, description="Write each message it sends into its folder.")
    warped: Flag = Field(False, description="Run it on a worker instead of here.")
    warp_configuration: Annotated[WarpConfiguration, Inside] = Field(
        default_factory=lambda: WarpConfiguration(), description="How it runs when it is warped."
    )
    own_timeout: Seconds | None = Field(
        None, alias="timeout", description="Seconds a message may take, waiting for a worker included."
    )
    own_retries: Whole = Field(0, alias="retries", description="How often a failed message is tried again.")
    on_error: Literal["stop", "skip", "dead_letter"] = Field(
        "stop", description="After the last try: end the run, go on without the message, or keep it aside."
    )
    console: Flag = Field(False, description="Keep what it prints for each message: in its folder, or else in the log.")
    cache: Annotated[CacheDefinition | None, Inside, BeforeValidator(cache_of), CacheSchema] = Field(
        None, description='Remember its results: true, for how long ("1h"), or an object.'
    )

    #: A function that is called: its arguments come with its messages.
    called: ClassVar[bool] = False

    foreign: ClassVar = {
        **dict.fromkeys(WarpConfiguration.model_fields, 'belongs into "warp_configuration": {...}'),
        **dict.fromkeys(PIPELINE_KEYS, 'is a key of the whole pipeline; write it beside "nodes"'),
    }
    wanted: ClassVar = {
        "name": "give the node a name of its own",
        "type": "write source, proc or sink",
        "mark": "write which class it is, such as tasks.gpu.Detect",
    }

    @classmethod
    def at(cls, location: Location, data: Mapping[str, Any]) -> str:
        """Return the place in a node that stands alone, in Python."""
        return f"nodes[{data.get('name', '')!r}].{path(location)}".rstrip(".")

    @property
    def queue(self) -> str:
        """The queue it runs on when it is warped; empty if nothing says which."""
        return self.warp_configuration.queue or _queue_of(self.mark)

    @property
    def timeout(self) -> float | None:
        """Its timeout, wherever that was written."""
        return self.own_timeout or self.warp_configuration.timeout

    @property
    def retries(self) -> int:
        """Its retries, wherever they were written."""
        return self.own_retries or self.warp_configuration.retries or 0

    @model_validator(mode="before")
    @classmethod
    def _of_class(cls, data: Any) -> Any:
        found = node_class(data.get("mark")) if isinstance(data, Mapping) else None
        if found is None:
            return data
        given = data.get("type", found.type)
        refuse(cls.__name__, _wrong_class(found, given, called=cls.called))
        data = {**data, "mark": f"{found.__module__}.{found.__qualname__}", "type": given}
        options = getattr(found, "options", None)
        return _with_options(data, options) if isinstance(options, Options) else data

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        refuse(type(self).__name__, _contradictions(self))
        return self


def home_of(key: str) -> str:
    """Say where a key belongs that stands among the arguments of a node; empty: it may well be meant as one."""
    if key in (*NODE_KEYS, "timeout", "retries"):
        return 'it is a key of the node; write it beside "configuration"'
    if key in WarpConfiguration.model_fields:
        return 'it belongs into "warp_configuration": {...}'
    return ""


def _queue_of(mark: str) -> str:
    """The last part of the mark's module; the class may be nested (``tasks.gpu.Reader.Fast``: gpu)."""
    parts = mark.split(".")[:-1]
    modules = [part for part in parts if not part[:1].isupper()]
    return modules[-1] if modules else ""


def _wrong_class(found: type[Node], given: object, *, called: bool) -> Iterable[tuple[Location, str]]:
    if "<locals>" in found.__qualname__:
        yield ("mark",), f"{found.__qualname__} is defined inside a function; move it to the top of a module"
    elif not called and means_another(found):  # of a call its session asks that, if it leaves the process
        yield ("mark",), f"{found.__module__} has another {found.__qualname__} by now; rename one of them"
    if given != found.type:
        yield ("type",), f"{found.__qualname__} is a {found.type or 'Node'}, not a {given}"


def _with_options(data: dict[str, Any], options: Options) -> dict[str, Any]:
    """What ``@node(queue=..., timeout=..., cache=..., console=...)`` says, where the definition says nothing."""
    if options.cache is not None and data.get("cache") is None:
        data = {**data, "cache": options.cache}
    if options.console and "console" not in data:
        data = {**data, "console": True}
    if not data.get("warped"):
        return data
    warp = data.get("warp_configuration", {})
    if isinstance(warp, WarpConfiguration):
        warp = warp.model_dump(exclude_unset=True)
    if not isinstance(warp, Mapping):
        return data
    defaults: dict[str, Any] = {}
    if options.queue is not None:
        defaults["queue"] = options.queue
    if options.timeout is not None and data.get("timeout") is None:
        defaults["timeout"] = options.timeout
    return {**data, "warp_configuration": {**defaults, **warp}}


def _contradictions(node: NodeDefinition) -> Iterable[tuple[Location, str]]:
    warp = node.warp_configuration
    for key in ("timeout", "retries"):
        here, there = getattr(node, f"own_{key}"), getattr(warp, key)
        if f"own_{key}" in node.model_fields_set and None not in (here, there) and here != there:
            text = f"is {there:g} here and {here:g} on the node; they are the same setting: write it once"
            yield ("warp_configuration", key), text
    if node.warped and warp.batches.size > warp.window:
        text = f'is {warp.batches.size}, and only {warp.window} messages are in flight; write "window": '
        yield ("warp_configuration", "batch", "size"), f"{text}{warp.batches.size} or more, or a smaller batch"
    if node.console and node.type == "source":
        yield ("console",), "a source has no messages to print for; ask for it at the nodes after it"
    if node.cache is not None and node.type != "proc":
        yield ("cache",), f"is for a proc, which turns what it gets into results; this is a {node.type}: leave it out"
    if node.warped and node.type == "source":
        yield ("warped",), "a source runs where its pipeline runs; warp the nodes after it"
    if node.warped and not warp.queue and node.queue and (complaint := wrong_queue(node.queue)):
        yield ("mark",), f"names its queue after its module, and {complaint}"
    if node.warped and not node.queue:
        text = f"is missing; the mark {node.mark!r} has no module to name the queue after: write the queue's name"
        yield ("warp_configuration", "queue"), text
