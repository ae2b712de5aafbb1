"""Which function is to be called: looked at here, before anything is sent."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from celerypipe.catalogue.outline import awaited, not_awaited
from celerypipe.catalogue.project import is_installed, project_at
from celerypipe.codec import encode_value
from celerypipe.contract.contract import means_another, node_class
from celerypipe.contract.function import FunctionNode
from celerypipe.contract.moving import MAIN, how_to_move
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import CodecError, ConfigError

#: Calls of one function that are on their way at one time; more wait here. A worker may have many slots.
WINDOW = 256


class CallDefinition(NodeDefinition):
    """The definition of a function that is called: its messages are calls, and a call that fails ends no other."""

    called: ClassVar[bool] = True

    if TYPE_CHECKING:  # type checkers would derive one that refuses a class as the mark

        def __init__(self, /, **data: Any) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function under ``@node`` that can be called elsewhere."""

    mark: str
    node: type[FunctionNode]
    signature: inspect.Signature
    #: Can all of its defaults travel?
    travels_whole: bool

    @classmethod
    def of(cls, value: Any, *, local: bool = False) -> Function:
        """Look at a function; :class:`ConfigError` says why it cannot be called, and what to do about it.

        ``local``: calls stay in this process, so that its module need not be one that others can import.
        """
        name = getattr(value, "__qualname__", None) or repr(value)
        if complaint := _complaint(value, local=local):
            raise ConfigError(f"{name} cannot be submitted: {complaint}")
        node = node_class(value)
        if node is None or not issubclass(node, FunctionNode):
            raise ConfigError(f"{name} cannot be submitted: put @node above it, so that workers know it")
        if node.takes_message:
            text = "its first parameter is a Message: it is a node of pipelines; write a function of plain values"
            raise ConfigError(f"{name} cannot be submitted: {text}")
        if found := not_awaited(awaited(node)):
            raise ConfigError(f"{name} cannot be submitted: {found[0]}")
        if node.stateful:
            text = "it is stateful, and calls come in any order; leave stateful out, or put it into a pipeline"
            raise ConfigError(f"{name} cannot be submitted: {text}")
        if not local and means_another(node):
            text = (
                f"{node.__module__} has another function of that name by now, and a worker would call that one; "
                "give one of them another name, or import it anew where its module was reloaded"
            )
            raise ConfigError(f"{name} cannot be submitted: {text}")
        signature = inspect.signature(node.__dict__["function"])
        return cls(f"{node.__module__}.{node.__qualname__}", node, signature, _travel(signature))

    @property
    def name(self) -> str:
        """What it is called among its own."""
        return self.node.__qualname__

    def bind(
        self, arguments: tuple[Any, ...], named: Mapping[str, Any], *, whole: bool = False
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments in one order, however they were given; TypeError if the function does not take them.

        ``whole``: with its defaults, so that what is left out is the same as what is given.
        """
        try:
            bound = self.signature.bind(*arguments, **named)
        except TypeError as error:
            bare = [each.replace(annotation=each.empty) for each in self.signature.parameters.values()]
            raise TypeError(f"{self.name}(): {error}; it takes {inspect.Signature(bare)}") from None
        if whole and self.travels_whole:
            bound.apply_defaults()
        return bound.args, bound.kwargs

    def untravelled(self, error: CodecError, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> CodecError:
        """Return the error of arguments that cannot travel, with the name of the parameter."""
        for name, value in self.signature.bind(*arguments[0], **arguments[1]).arguments.items():
            try:
                encode_value(value)
            except CodecError as found:
                text = str(found)
                place = f"{name}{text.removeprefix('value')}" if text.startswith("value") else f"{name}: {text}"
                return CodecError(f"{self.name}(): the argument {name!r} cannot travel: {place}")
        return CodecError(f"{self.name}(): its arguments cannot travel: {error}")

    def definition(self, name: str) -> CallDefinition:
        """Return its node in a session, under this name there."""
        limits = {"ordered": False, "window": WINDOW}
        return CallDefinition(
            name=name, type="proc", mark=self.node, warped=True, warp_configuration=limits, on_error="skip"
        )


def _complaint(value: Any, *, local: bool) -> str:
    """Why something is no function that others could find, and the cure; empty if it may be one."""
    node = node_class(value)
    if inspect.isclass(value):
        if node is not None:
            return "it is a class; submit a function under @node, or put the class into a pipeline"
        return "it is a class; write a function with def that does what is wanted of it, and @node above it"
    if isinstance(value, functools.partial):
        return "it is a partial; submit the function itself, with all of its arguments"
    if inspect.ismethod(value):
        return "it is a method of an object, and the object stays here; make it a function of a module"
    if not callable(value):
        return f"a {type(value).__name__} is no function"
    if getattr(value, "__name__", "") == "<lambda>":
        return "a lambda has no name that a worker could import; write a function with def, and @node above it"
    name, module = getattr(value, "__qualname__", ""), getattr(value, "__module__", None) or ""
    if "<locals>" in name:
        return "it is defined inside a function; move it to the top of a module"
    if node is None and (not inspect.isfunction(value) or _is_installed(module)):
        return "it is no function of yours; write one with def that calls it, and @node above that"
    if module == MAIN and not local:
        queue = node.options.queue if node is not None and issubclass(node, FunctionNode) else None
        return how_to_move(name, queue or "", is_node=node is not None)
    return ""


def _is_installed(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return bool(file) and is_installed(project_at(module, Path(file))[0].folder)


def _travel(signature: inspect.Signature) -> bool:
    defaults = [each.default for each in signature.parameters.values() if each.default is not each.empty]
    try:
        encode_value(defaults)
    except CodecError:
        return False
    return True


def as_function(value: Callable[..., Any], known: dict[Any, Function], *, local: bool) -> Function:
    """Return the function of a callable, looked at once."""
    try:
        return known[value]
    except (KeyError, TypeError):
        function = known[value] = Function.of(value, local=local)
        return function
