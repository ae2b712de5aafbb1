"""What is said of a node before it runs: what it takes, and what can be done with it.

Of a class that is here; of one that is not imported see :mod:`celerypipe.catalogue.unimported`.
"""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from celerypipe.catalogue.arguments import Argument, arguments_of, complaints, takes_anything
from celerypipe.contract.contract import CALLED, Node, takes_batches, takes_snapshots
from celerypipe.contract.function import FunctionNode
from celerypipe.errors import Complaint


@dataclass(frozen=True, slots=True)
class Outline:
    """What a node takes (``open``: arguments of any name), and what it can. ``kind``: source, proc or sink.

    ``awaits``: those of its methods that are ``async``, which nobody awaits.
    """

    mark: str
    kind: str
    arguments: tuple[Argument, ...]
    open: bool
    stateful: bool
    snapshots: bool
    batches: bool
    awaits: tuple[str, ...]

    def scalars(self) -> dict[str, type | None]:
        """Return what becomes of the text of a variable, by argument, see :attr:`Argument.scalar`."""
        return {argument.name: argument.scalar for argument in self.arguments}

    def takes(self, name: str) -> bool:
        """Is there an argument of that name, or are all welcome?"""
        return self.open or any(argument.name == name for argument in self.arguments)

    def default(self, name: str) -> Any:
        """Return the default of an argument; None if it has none, or is not taken."""
        return next((argument.default for argument in self.arguments if argument.name == name), None)

    def complaints(self, configuration: Mapping[str, Any], unsettled: Container[str] = ()) -> list[Complaint]:
        """Return what is wrong with its arguments, by argument; ``unsettled``: those whose value is not known yet."""
        return complaints(self.mark, self.arguments, self.open, configuration, unsettled)


def outline_of(mark: str, node: type[Node], defaults: Mapping[str, Any]) -> Outline:
    """Return the outline of a class; ``defaults`` of arguments come before those of its code."""
    is_open = not defaults and takes_anything(node)
    facts = node.stateful, takes_snapshots(node), takes_batches(node), awaited(node)
    return Outline(mark, node.type, arguments_of(node, defaults), is_open, *facts)


def awaited(node: type[Node]) -> tuple[str, ...]:
    """Return those of a class's methods that are ``async``; of a function under ``@node`` itself."""
    if issubclass(node, FunctionNode):
        return (node.__name__,) if _is_async(node.__dict__["function"]) else ()
    return tuple(name for name in CALLED if _is_async(getattr(node, name, None)))


def not_awaited(methods: Iterable[str]) -> list[str]:
    """Say what is wrong with the methods of a node that are ``async``, one sentence each."""
    cure = "write def, and asyncio.run(...) around what it awaits"
    return [f"{name}() is async, and celerypipe calls it without awaiting it; {cure}" for name in methods]


def _is_async(value: Any) -> bool:
    return inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)
