"""A function that is called: a node whose messages are calls, with all of its arguments in each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celerypipe.catalogue.outline import awaited, not_awaited
from celerypipe.contract.contract import Node, Output, Proc
from celerypipe.contract.function import FunctionNode
from celerypipe.errors import ConfigError, NodeFailed
from celerypipe.message.message import Message


class CalledFunction(Proc):
    """Calls a function: a payload is its arguments, ``(positional, named)``; what it returns is that of the result."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def update(self, message: Message) -> Output:
        """Call it once."""
        match message.payload:
            case (tuple() as arguments, dict() as named):
                return message.with_payload(self._function(*arguments, **named))
        raise NodeFailed(f"{self.name}: a message of {type(message.payload).__name__} is no call of a function")


def called(mark: str, node: type[Node]) -> CalledFunction:
    """Return what calls the function of a node; :class:`ConfigError` if it is none that can be called."""
    if not issubclass(node, FunctionNode):
        raise ConfigError(f"{mark} is a class, and only functions under @node are called")
    if node.takes_message or node.stateful:
        what = "takes a Message" if node.takes_message else "is stateful"
        raise ConfigError(f"{mark} {what}: it is a node of pipelines, and not called; write a function of plain values")
    if found := not_awaited(awaited(node)):
        raise ConfigError(f"{mark}: {found[0]}")
    return CalledFunction(node.__dict__["function"])
