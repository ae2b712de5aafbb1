"""The parts of a definition: nodes, links, dead letters. Frozen values, keys as juturna has them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from celerypipe.contract.contract import MARK, Node, means_another, node_class
from celerypipe.contract.function import Options
from celerypipe.definition.cache import CacheDefinition as CacheDefinition  # part of a definition, asked for here
from celerypipe.definition.cache import CacheSchema, cache_of
from celerypipe.definition.environment import from_environment
from celerypipe.definition.names import environment_of, with_environment, wrong_name, wrong_queue
from celerypipe.definition.shape import (
    Flag,
    Inside,
    Location,
    Positive,
    Seconds,
    Shape,
    Whole,
    fail,
    path,
    refuse,
)
from celerypipe.definition.warp import MESSAGES, NODE_KEYS, WarpConfiguration


def _name(value: str) -> str:
    return fail(complaint) if (complaint := wrong_name(value)) else value


def _mark(value: str) -> str:
    if not MARK.fullmatch(value):
        fail(f"{value!r} is no mark; write a dotted path such as tasks.gpu.Detect, or a short name")
    return value


def _end(value: str) -> str:
    return value or fail("must not be empty; write the name of a node")


Name = Annotated[str, AfterValidator(_name)]
End = Annotated[str, AfterValidator(_end)]


class Link(Shape, init=False):
    """From one node to another. In Python ``("a", "b")`` is the same."""

    source: End = Field(alias="from", description="The name of the node that sends.", examples=["scans"])
    target: End = Field(alias="to", description="The name of the node that receives.", examples=["read"])
    full: Literal["block", "drop"] = Field(
        "block", description="When the receiver is full: block the sender, or drop the message.", examples=["drop"]
    )

    wanted: ClassVar = {"from": "write the name of the node that sends", "to": "write the name of the receiver"}

    @model_validator(mode="before")
    @classmethod
    def _of_pair(cls, data: Any) -> Any:
        return {"from": data[0], "to": data[1]} if isinstance(data, tuple) and len(data) == 2 else data

    def __str__(self) -> str:
        return f"{self.source} → {self.target}"


#: What the whole pipeline has.
PIPELINE_KEYS = ("folder", "telemetry", "nodes", "links", "schedule", "deadline", "dead_letters")


class DeadLetterLimits(Shape, init=False):
    """How many dead letters are kept in the pipeline's folder. The oldest are removed first."""

    count: Positive = Field(
        10_000, description="The largest number of them.", json_schema_extra=MESSAGES, examples=[1000]
    )
    bytes: Positive = Field(
        1024**3, description="The largest size of all together.", json_schema_extra={"unit": "bytes"}, examples=[10**8]
    )
    age: Seconds = Field(30 * 86_400.0, description="How long each is kept.", examples=[604_800])


class NodeDefinition(Shape, init=False):
    """One node of a pipeline. In Python ``mark`` may be the class, or the function under ``@node``, itself."""

    model_config = ConfigDict(validate_by_name=False)

    name: Name = Field(description="The node's name. Each node needs another one.", examples=["read"])
    type: Literal["source", "proc", "sink"] = Field(
        description="A source sends messages, a proc turns messages into others, a sink receives them.",
        examples=["proc"],
    )
    mark: Annotated[str, AfterValidator(_mark)] = Field(
        description="The node's class: a dotted path, or the short name of a built-in, installed or plugin node.",
        examples=["tasks.gpu.Detect"],
    )
    configuration: dict[str, Any] = Field(
        default_factory=dict,
        description="The arguments of the class. In a text ${NAME} is replaced by the environment variable NAME, and "
        "${NAME:-default} by the default where it is not set; $JT_ENV_NAME, as a whole text, is juturna's word for it.",
        examples=[{"model": "small", "token": "$JT_ENV_TOKEN"}],
    )
    sync: str | None = Field(
        None,
        description="How messages of several incoming links are joined: passthrough, local, zip, latest, "
        "key:<meta field>, within:<seconds>.",
        examples=["key:image"],
    )
    auto_dump: Flag = Field(False, description="Write each message that it sends into its folder.", examples=[True])
    warped: Flag = Field(False, description="Run the node on a worker instead of here.", examples=[True])
    warp_configuration: Annotated[WarpConfiguration, Inside] = Field(
        default_factory=lambda: WarpConfiguration(),
        description="How it runs when it is warped.",
        examples=[{"queue": "gpu"}],
    )
    own_timeout: Seconds | None = Field(
        None,
        alias="timeout",
        description="How long a message may take, including the wait for a worker; warm-up does not count. Default: no "
        "limit.",
        examples=[60],
    )
    own_retries: Whole = Field(
        0,
        alias="retries",
        description="How often a failed message is tried again.",
        json_schema_extra={"unit": "attempts"},
        examples=[2],
    )
    on_error: Literal["stop", "skip", "dead_letter"] = Field(
        "stop",
        description="After the last attempt: stop the run, skip the message, or keep it as a dead letter.",
        examples=["dead_letter"],
    )
    console: Flag = Field(
        False,
        description="Keep what the node prints for each message, in its folder; without a folder, in the log.",
        examples=[True],
    )
    cache: Annotated[CacheDefinition | None, Inside, BeforeValidator(cache_of), CacheSchema] = Field(
        None,
        description='Keep its results for the same input: true, how long ("1h"), or an object.',
        examples=["1d"],
    )

    #: A function that is called: its arguments come with its messages.
    called: ClassVar[bool] = False

    foreign: ClassVar = {
        **dict.fromkeys(WarpConfiguration.model_fields, 'must stand in "warp_configuration": {...}'),
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
        """The queue it runs on when it is warped, that of its environment; empty if nothing says which."""
        warp = self.warp_configuration
        return with_environment(warp.queue or _queue_of(self.mark), warp.environment)

    @cached_property
    def from_environment(self) -> frozenset[str]:
        """The arguments that hold a ``"$JT_ENV_NAME"``; they may be large, so they are looked through once."""
        return frozenset(from_environment(self.configuration))

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
        mark = data.get("mark") if isinstance(data, Mapping) else None
        found = node_class(mark)
        if found is None:
            refuse(cls.__name__, _no_node(mark))
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
        return 'it must stand in "warp_configuration": {...}'
    return ""


def _queue_of(mark: str) -> str:
    """The last part of the mark's module; the class may be nested (``tasks.gpu.Reader.Fast``: gpu)."""
    parts = mark.split(".")[:-1]
    modules = [part for part in parts if not part[:1].isupper()]
    return modules[-1] if modules else ""


def _no_node(mark: object) -> Iterable[tuple[Location, str]]:
    """What was given in Python in place of a class, or of the function under ``@node``."""
    if isinstance(mark, Node):
        name = type(mark).__qualname__
        yield ("mark",), f'is a node that is made already; give its class, {name}, and its arguments as "configuration"'
    elif inspect.isfunction(mark) and mark.__name__ != "<lambda>":
        yield ("mark",), f"{mark.__qualname__} is a plain function; put @node above it"
    elif inspect.isclass(mark):
        yield ("mark",), f"{mark.__qualname__} is no node; let it inherit from Source, Proc or Sink"
    elif callable(mark):
        name = getattr(mark, "__qualname__", type(mark).__qualname__)
        yield ("mark",), f"{name} is no node; write a function with def, put @node above it, and give that"


def _wrong_class(found: type[Node], given: object, *, called: bool) -> Iterable[tuple[Location, str]]:
    if "<locals>" in found.__qualname__:
        yield ("mark",), f"{found.__qualname__} is defined inside a function; move it to the top of a module"
    elif not called and means_another(found):  # of a call its session asks that, if it leaves the process
        yield ("mark",), f"{found.__module__} has another {found.__qualname__} by now; rename one of them"
    if given != found.type:
        yield ("type",), f"{found.__qualname__} is a {found.type or 'Node'}, not a {given}"


def _with_options(data: dict[str, Any], options: Options) -> dict[str, Any]:
    """What ``@node(queue=..., environment=..., timeout=..., ...)`` says, where the definition says nothing."""
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
    if options.environment is not None:
        defaults["environment"] = options.environment
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
    if warp.environment and warp.queue and environment_of(warp.queue)[1]:
        text = f"names an environment already; leave out this one, or write {environment_of(warp.queue)[0]!r} there"
        yield ("warp_configuration", "environment"), f"is given, and the queue {warp.queue!r} {text}"
    if node.warped and warp.environment and warp.on_no_worker == "local":
        text = '"local" would run it here, and not in its environment; write "wait" or "fail"'
        yield ("warp_configuration", "on_no_worker"), text
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
