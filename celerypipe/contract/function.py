"""``@node``: a function as a node, or as something to call."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, overload

from celerypipe.contract.contract import Output, Proc
from celerypipe.errors import ConfigError
from celerypipe.message.message import Message

#: What ``cache`` may be.
Cache = bool | str | float | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """What ``@node(...)`` was given: defaults for a pipeline built from the function."""

    queue: str | None = None
    environment: str | None = None
    timeout: float | None = None
    version: str = ""
    stateful: bool = False
    cache: Cache | None = None
    console: bool = False
    writable: bool = False


class FunctionNode(Proc):
    """A function as a proc. ``function`` and its ``options`` are set on the subclass that ``@node`` makes."""

    function: ClassVar[Callable[..., Any]]
    options: ClassVar[Options]
    takes_message: ClassVar[bool]
    takes_nothing: ClassVar[bool]

    def __init__(self, **configuration: Any) -> None:
        if self.takes_nothing:
            raise ConfigError(
                f"{type(self).__qualname__}() takes nothing: call it with Runner.submit, or give it a first parameter "
                "for the payload of a message"
            )
        type(self).__signature__.bind(**configuration)  # type: ignore[attr-defined]  # set by @node
        self.configuration = configuration

    def update(self, message: Message) -> Output:
        """Call the function with the message, or with its payload, and the configuration."""
        function = type(self).__dict__["function"]
        if self.takes_message:
            return typing.cast(Output, function(message, **self.configuration))
        return message.with_payload(function(message.payload, **self.configuration))


F = typing.TypeVar("F", bound=Callable[..., Any])


@overload
def node(function: F, /) -> F: ...
@overload
def node(
    *,
    queue: str | None = None,
    environment: str | None = None,
    timeout: float | None = None,
    version: str = "",
    stateful: bool = False,
    cache: Cache | None = None,
    console: bool = False,
    writable: bool = False,
) -> Callable[[F], F]: ...
def node(
    function: F | None = None,
    /,
    *,
    queue: str | None = None,
    environment: str | None = None,
    timeout: float | None = None,
    version: str = "",
    stateful: bool = False,
    cache: Cache | None = None,
    console: bool = False,
    writable: bool = False,
) -> Any:
    """Make a node of a function. The function itself can be called as before.

    Its first parameter annotated :class:`Message`: it is a proc, under the contract of :meth:`Proc.update`.
    Otherwise the first parameter receives the payload, and what it returns is the payload of the one message sent.
    All further parameters are the node's configuration. The mark is the function's dotted path.

    ``queue``: The queue of its workers. By default the last part of its module's name.
    ``environment``: The one of that queue's list that they run in.
    ``timeout``: How many seconds a message or call may take on a worker, with the wait for one.
    ``version``: The version of its code, for the result cache and ``celerypipe check --live``.
    ``stateful``: It remembers something from one message to the next. Then it can only be used in a pipeline.
    ``cache``: Keep its results for the same input, as the key ``cache`` of a node.
    ``console``: Keep what it prints.
    ``writable``: It writes into the arrays that it is given, and gets copies.
    """
    if function is None:
        options = Options(queue, environment, timeout, version, stateful, cache, console, writable)
        return functools.partial(_decorate, options=options)
    return _decorate(function, options=Options())


def _decorate(function: F, *, options: Options) -> F:
    parameters = list(inspect.signature(function).parameters.values())
    named = (p for p in parameters[1:] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    configuration = [p.replace(kind=p.KEYWORD_ONLY) for p in named]
    hints = _hints(function)
    members = {
        "__doc__": function.__doc__,
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__signature__": inspect.Signature(configuration),
        "function": staticmethod(function).__func__,
        "options": options,
        "takes_message": bool(parameters) and hints.get(parameters[0].name) is Message,
        "takes_nothing": not parameters,
        "stateful": options.stateful,
        "writable": options.writable,
        "version": options.version,
    }
    function.__node__ = type(function.__name__, (FunctionNode,), members)  # type: ignore[attr-defined]
    return function


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The function's annotations, resolved where they can be; a name that cannot be resolved is no Message."""
    try:
        return typing.get_type_hints(function)
    except NameError:
        return {
            name: Message if hint in ("Message", "celerypipe.Message") else hint
            for name, hint in function.__annotations__.items()
        }
