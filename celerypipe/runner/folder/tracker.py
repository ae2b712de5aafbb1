"""What becomes of replayed dead letters: followed through the graph until all that came of each is through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from celerypipe.message.message import Message
from celerypipe.message.payload import Batch
from celerypipe.runner.folder.letter import DeadLetter, name_of


@dataclass(slots=True, eq=False)
class _LetterTree:
    """Replayed letters and all that came of them: ``out`` messages are still on their way, by these ``ids``."""

    letters: dict[str, DeadLetter] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    out: int = 0
    kept: bool = False


class Tracker:
    """Counts the messages that descend from each replayed letter. ``through`` is called when none is left.

    It is not called for a letter that died again where it died before, nor where something of it was given up without
    becoming a dead letter. Messages know their children by id only, so that what is not replayed costs one look.
    """

    def __init__(self, through: Callable[[DeadLetter], None]) -> None:
        self._through = through
        self._trees: dict[str, _LetterTree] = {}
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def follows(self, letter: DeadLetter) -> bool:
        """Is this letter on its way?"""
        with self._lock:
            return letter.name in self._names

    @property
    def idle(self) -> bool:
        """Is nothing on its way?"""
        return not self._trees

    def begin(self, letter: DeadLetter, message: Message) -> None:
        """The message of a letter is about to go in."""
        with self._lock:
            tree = self._tree([message.id]) or _LetterTree()
            tree.letters[letter.name] = letter
            self._names.add(letter.name)
            self._add(tree, message)

    def sent(self, child: Message, parent: Message) -> None:
        """A message that was made of another one is about to be handed on."""
        with self._lock:
            tree = self._tree(_ids(self._trees, parent))
            if tree is not None:
                tree = self._tree([child.id], tree) or tree
                self._add(tree, child)

    def hold(self, message: Message) -> None:
        """A message is not through before :meth:`left` was called once more."""
        with self._lock:
            tree = self._tree(_ids(self._trees, message))
            if tree is not None:
                tree.out += 1

    def left(self, message: Message) -> None:
        """A message is through its node, and what came of it was handed on."""
        done: list[DeadLetter] = []
        with self._lock:
            for each in _ids(self._trees, message):
                tree = self._trees.get(each)
                if tree is None:
                    continue
                tree.out -= 1
                if tree.out <= 0:
                    self._forget(tree)
                    done += () if tree.kept else tree.letters.values()
        for letter in done:
            self._through(letter)

    def stays(self, message: Message) -> None:
        """A message was given up and is nowhere: the letters that it came of stay."""
        with self._lock:
            tree = self._tree(_ids(self._trees, message))
            if tree is not None:
                tree.kept = True

    def buried(self, node: str, message: Message) -> None:
        """A message is a dead letter now. One that died where it died before is that letter again, which stays."""
        with self._lock:
            tree = self._tree(_ids(self._trees, message))
            name = name_of(message.id, node)
            if tree is not None and tree.letters.pop(name, None) is not None:
                self._names.discard(name)

    def end(self) -> None:
        """All messages of the run are out: what still waited for a partner in a join has found none."""
        with self._lock:
            trees = {id(tree): tree for tree in self._trees.values()}
            self._trees.clear()
        for tree in trees.values():
            for letter in () if tree.kept else tree.letters.values():
                self._through(letter)

    def _add(self, tree: _LetterTree, message: Message) -> None:
        tree.out += 1
        tree.ids.add(message.id)
        self._trees[message.id] = tree

    def _forget(self, tree: _LetterTree) -> None:
        for each in tree.ids:
            self._trees.pop(each, None)
        self._names.difference_update(tree.letters)

    def _tree(self, ids: Iterable[str], first: _LetterTree | None = None) -> _LetterTree | None:
        """The tree of these messages; those of several become one, since what was joined is through together."""
        for each in ids:
            tree = self._trees.get(each)
            if tree is None or tree is first:
                continue
            if first is None:
                first = tree
                continue
            first.letters |= tree.letters
            first.ids |= tree.ids
            first.out += tree.out
            first.kept = first.kept or tree.kept
            self._trees.update(dict.fromkeys(tree.ids, first))
        return first


def _ids(trees: dict[str, _LetterTree], message: Message) -> list[str]:
    """The ids under which a message is followed: its own, or those of the messages that a join put into it."""
    if message.id in trees:
        return [message.id]
    if isinstance(message.payload, Batch):
        return [part.id for part in message.payload.messages if part.id in trees]
    return []
