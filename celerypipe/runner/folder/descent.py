"""Where messages came from: source messages or replayed letters, each followed until all that came of it is through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from celerypipe.message.message import Message

Root = TypeVar("Root")


@dataclass(slots=True, eq=False)
class _Tree(Generic[Root]):
    """Roots and all that came of them: ``out`` messages are on their way, known by these names."""

    names: list[str]
    out: int = 0
    roots: list[Root] = field(default_factory=list)
    kept: bool = False


class Descent(Generic[Root]):
    """Counts the messages that descend from each root. ``through`` is called with the roots of which none is left,
    before anything else begins or ends.

    ``name`` tells by what a message is known here: its origin, say, which what is made of it inherits, or its id, which
    it does not. What is made of messages of several roots joins them: they are through together.
    """

    def __init__(
        self, name: Callable[[Message], str], through: Callable[[list[Root]], None], *, inherited: bool
    ) -> None:
        self._name = name
        self._inherited = inherited
        self._through = through
        self._trees: dict[str, _Tree[Root]] = {}
        self._lock = threading.Lock()

    def still(self) -> AbstractContextManager[bool]:
        """Let nothing begin and nothing end for the length of a block."""
        return self._lock

    @property
    def idle(self) -> bool:
        """Is nothing on its way?"""
        return not self._trees

    @property
    def count(self) -> int:
        """Of how many roots something is on its way."""
        with self._lock:
            return sum(len(tree.roots) for tree in set(self._trees.values()))

    def roots(self, message: Message) -> Sequence[Root]:
        """Return the roots of a message."""
        tree = self._trees.get(self._name(message))
        return tree.roots if tree is not None else ()

    def begin(self, root: Root, name: str) -> None:
        """A root is about to be handed on as a message of this name; it is out until :meth:`begun` is called."""
        with self._lock:
            tree = self._trees.get(name)
            if tree is None:
                tree = self._trees[name] = _Tree(names=[name])
            tree.out += 1
            tree.roots.append(root)

    def begun(self, name: str) -> None:
        """The message was handed on."""
        with self._lock:
            tree = self._trees.get(name)
            if tree is None:
                return
            tree.out -= 1
            if tree.out > 0:
                return
            for each in tree.names:
                del self._trees[each]
            self._end(tree)

    def sent(self, message: Message, parent: Message | None, nodes: int = 1) -> None:
        """A message is about to be offered to so many nodes; it is out until :meth:`left` is called for each.

        ``parent``: what it was made of.
        """
        name = self._name(message)
        above = name if parent is None or self._inherited else self._name(parent)
        with self._lock:
            tree = self._trees.get(above) or self._trees.get(name)
            if tree is not None:
                tree.out += nodes
                if name != above:
                    self._put(tree, name)

    def joined(self, message: Message, parts: Iterable[Message]) -> None:
        """A join made one message of these."""
        with self._lock:
            names = [name for name in map(self._name, parts) if name in self._trees]
            if names:
                tree = self._put(self._trees[names[0]], self._name(message))
                for name in names[1:]:
                    self._put(tree, name).out -= 1

    def left(self, message: Message) -> None:
        """A message is through a node and what came of it was sent; or it was given up."""
        self.begun(self._name(message))

    def unmatched(self, message: Message) -> None:
        """A join gave a message up. A letter stays for its run to end well, since what it was for is not done."""
        if self._inherited:
            self.left(message)

    def stands(self, message: Message) -> bool:
        """Is a message where it was handed to, and was nothing made of it?"""
        name = self._name(message)
        tree = self._trees.get(name)
        return tree is not None and tree.names == [name]

    def stays(self, message: Message) -> None:
        """A message is lost: no root that it came of is ever through."""
        with self._lock:
            tree = self._trees.get(self._name(message))
            if tree is not None:
                tree.kept = True

    def remove(self, root: Root, message: Message) -> None:
        """A root is none any more, if the message came of it, whatever becomes of the rest."""
        with self._lock:
            tree = self._trees.get(self._name(message))
            if tree is not None and root in tree.roots:
                tree.roots.remove(root)

    def end(self) -> None:
        """All is through; what still waited for a partner in a join has found none."""
        with self._lock:
            trees = set(self._trees.values())
            self._trees.clear()
            for tree in trees:
                self._end(tree)

    def _end(self, tree: _Tree[Root]) -> None:
        """Nothing of a tree is left."""
        if not tree.kept:
            self._through(tree.roots)

    def _put(self, tree: _Tree[Root], name: str) -> _Tree[Root]:
        """Know a message of this name as one of the tree; another tree that has it becomes part of this one."""
        other = self._trees.get(name)
        if other is None:
            tree.names.append(name)
            self._trees[name] = tree
        elif other is not tree:
            tree.out += other.out
            tree.names += other.names
            tree.kept |= other.kept
            tree.roots += other.roots
            self._trees.update(dict.fromkeys(other.names, tree))
        return tree
