"""Dead letters: messages that were given up, kept in the pipeline's folder, to be looked at and run again.

A letter is two files in ``dead_letters/``: ``<name>.json`` says which node gave the message up and why, and
``<name>.message`` is the message as the codec writes it. The name is that of the message and of the node, so that a
message which died on two branches is two letters, and one that dies again where it died before stays one.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from celerypipe import codec
from celerypipe.definition.parts import DeadLetterLimits
from celerypipe.errors import CodecError, ConfigError, did_you_mean
from celerypipe.message.files import File
from celerypipe.message.message import Message
from celerypipe.runner.folder.letter import NAME, DeadLetter, letter_of, name_of

#: The folder in a pipeline's folder.
PLACE = "dead_letters"
#: Reasons larger than this are not ours: a traceback has a few thousand characters.
MOST_REASON = 16 * 1024 * 1024
#: Seconds between two counts of a folder that is full.
LOOK = 30.0


class LettersFound(NamedTuple):
    """What is in the folder: letters, oldest first, and a line about each file that is none."""

    letters: list[DeadLetter]
    strange: list[str]


class DeadLetters:
    """The letters of one folder. Any thread may call; several processes may use one folder.

    ``say`` is told once when letters go because there are too many of them.
    """

    def __init__(
        self, folder: Path, *, limits: DeadLetterLimits | None = None, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.folder = folder
        self.limits = limits or DeadLetterLimits()
        self._say = say
        self._said: set[str] = set()
        self._lock = threading.Lock()
        #: What is kept, as it was when somebody looked: name → when and how large, oldest first.
        self._kept: dict[str, tuple[float, int]] = {}
        #: The files in letters of this run, by name: as long as it has them, the letters can be replayed in it.
        self._files: dict[str, Sequence[File]] = {}
        self._bytes = 0
        self._looked: float | None = None
        #: Letters of the runs that this one goes on from, by their keys.
        self._earlier: dict[str, str] | None = None

    # -- keeping ----------------------------------------------------------------------------------------------------

    def keep(self, node: str, message: Message, why: Mapping[str, Any], *, earlier: Collection[str] = ()) -> bool:
        """Write a letter; OSError when that cannot be done. The oldest ones go where there are too many.

        It takes the place of that of the same message which one of the ``earlier`` runs left, from which this one goes
        on. False: the message itself cannot be kept; the letter says why, in ``not_kept``.
        """
        name = name_of(message.id, node)
        reason: dict[str, Any] = {"node": node, "message": message.id, "at": time.time(), **why}
        with self._lock:
            self.folder.mkdir(exist_ok=True)
            self._look()
            before = self._read(name)
            if isinstance(before, DeadLetter):
                reason |= _again(before, reason)
            size = 0 if "not_kept" in why else self._write_message(name, message, reason)
            text = json.dumps(reason, indent=2).encode()
            _write(self.folder / f"{name}.json", text)
            self._note(name, reason["at"], size + len(text))
            if (same := self._left(str(why.get("key", "")), earlier)) not in ("", name):
                self._forget(same)
                self._unlink(same)
            self._thin_out()
        return size > 0

    def _left(self, key: str, runs: Collection[str]) -> str:
        """The name of the letter with this key that one of the runs left, if there is one; it is asked for once."""
        if not key or not runs:
            return ""
        if self._earlier is None:
            self._earlier = {each.key: each.name for each in self.find().letters if each.key and each.run in runs}
        return self._earlier.pop(key, "")

    def _write_message(self, name: str, message: Message, reason: dict[str, Any]) -> int:
        """Write the bytes of a message before its reason, so that a letter is whole as soon as it is seen."""
        path = self.folder / f"{name}.message"
        try:
            data = codec.encode_joined([message])
        except CodecError as refused:
            reason["not_kept"] = str(refused)
        else:
            if len(data) <= self.limits.bytes:
                _write(path, data)
                if files := codec.encode_apart([message]).files:
                    self._files[name] = files
                return len(data)
            reason["not_kept"] = f"its {len(data)} bytes are more than dead_letters.bytes, {self.limits.bytes}"
        path.unlink(missing_ok=True)
        return 0

    def expire(self) -> None:
        """Remove what is too old, or too much: what an earlier run left."""
        with self._lock:
            if self.folder.is_dir():
                self._look()
                self._thin_out()

    def _note(self, name: str, at: float, size: int) -> None:
        self._forget(name)
        self._kept[name] = (at, size)
        self._bytes += size

    def _forget(self, name: str) -> None:
        _, size = self._kept.pop(name, (0.0, 0))
        self._bytes -= size

    def _look(self, *, again: bool = False) -> None:
        """Count what is there, without opening it: others write to the folder too, and take away."""
        if self._looked is not None and not (again and time.monotonic() - self._looked > LOOK):
            return
        self._looked = time.monotonic()
        found = sorted((_written(path), path.stem) for path in self.folder.glob("*.json") if NAME.fullmatch(path.stem))
        self._kept, self._bytes = {}, 0
        for at, name in found:
            self._note(name, at, self._size(name))
        self._files = {name: files for name, files in self._files.items() if name in self._kept}

    def _thin_out(self) -> None:
        """Take away the oldest letters until no cap is passed. What only looks like one is counted, and left alone."""
        if self._beyond():
            self._look(again=True)
        while self._kept and (why := self._beyond()):
            name = next(iter(self._kept))
            letter = self._read(name)
            self._forget(name)
            if not isinstance(letter, DeadLetter):
                continue
            self._unlink(name)
            if why not in self._said:
                self._said.add(why)
                self._say(
                    f"dead letters: {why} in {self.folder}: the oldest are removed; celerypipe dead replay empties it"
                )

    def _beyond(self) -> str:
        """Which cap is passed, in words."""
        limits, kept = self.limits, self._kept
        if len(kept) > limits.count:
            return f"there are more than {limits.count}"
        if self._bytes > limits.bytes and len(kept) > 1:
            return f"they take more than {limits.bytes} bytes"
        oldest, _ = next(iter(kept.values()), (time.time(), 0))
        if time.time() - oldest <= limits.age:
            return ""
        return "some are older than " + (
            f"{limits.age / 86_400:g} days" if limits.age > 86_400 else f"{limits.age:g} seconds"
        )

    # -- finding ----------------------------------------------------------------------------------------------------

    def find(self) -> LettersFound:
        """Return all letters, oldest first, and what else is in the folder and is left alone."""
        letters: list[DeadLetter] = []
        strange: list[str] = []
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return LettersFound([], [])
        except OSError as error:
            raise ConfigError(f"{self.folder}: cannot be read: {error.strerror}") from None
        there = set(names)
        for name in names:
            if name.startswith("."):
                continue
            stem, dot, ending = name.rpartition(".")
            if ending == "json" and dot:
                letter = self._read(stem)
                if isinstance(letter, DeadLetter):
                    letters.append(letter)
                elif letter:
                    strange.append(letter)
            elif ending != "message" or not dot:
                strange.append(f"{name}: is no dead letter")
            elif f"{stem}.json" not in there:
                strange.append(f"{name}: nothing says why it is here: there is no {stem}.json")
        letters.sort(key=lambda letter: (letter.at, letter.name))
        return LettersFound(letters, strange)

    def get(self, word: str) -> DeadLetter:
        """Return the letter of that name, or the only one whose name begins so; else :class:`ConfigError`."""
        exact = self._read(word)
        if isinstance(exact, DeadLetter):
            return exact
        found = self.find()
        near = [letter for letter in found.letters if word and letter.name.startswith(word)]
        if len(near) == 1:
            return near[0]
        if near:
            raise ConfigError(f"{word!r} begins the names of {len(near)} dead letters; write more of it")
        broken = next((line for line in found.strange if line.startswith(f"{word}.")), "")
        if broken:
            raise ConfigError(f"{self.folder}: {broken}")
        cure = did_you_mean(word, [letter.name for letter in found.letters])
        raise ConfigError(f"there is no dead letter {word!r} in {self.folder}{cure}")

    def message(self, letter: DeadLetter) -> Message:
        """Return the message of a letter; :class:`CodecError` when there is none, or none that can be read."""
        path = self.folder / f"{letter.name}.message"
        if letter.not_kept:
            raise CodecError(f"{letter.name}: its message could not be kept: {letter.not_kept}")
        try:
            messages = codec.decode(_content(path))
        except OSError as error:
            raise CodecError(f"{path}: cannot be read: {error.strerror or error}") from None
        except CodecError as error:
            raise CodecError(f"{path}: is no message: {error}") from None
        if len(messages) != 1:
            raise CodecError(f"{path}: holds {len(messages)} messages, not one")
        return messages[0]

    def _read(self, name: str) -> DeadLetter | str:
        """A letter, or a line about what is wrong with its file; nothing for one that is gone."""
        if not NAME.fullmatch(name):
            return f"{name}.json: is no name of a dead letter"
        path = self.folder / f"{name}.json"
        try:
            if path.lstat().st_size > MOST_REASON:
                return f"{name}.json: is too large to be a dead letter"
            data = json.loads(_content(path))
            at = path.lstat().st_mtime
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{name}.json: cannot be read: {error.strerror or error}"
        except (ValueError, RecursionError):
            return f"{name}.json: is no JSON"
        return letter_of(name, data, at, self._size(name))

    def _size(self, name: str) -> int:
        """Bytes of both files."""
        size = 0
        for path in (self.folder / f"{name}.json", self.folder / f"{name}.message"):
            with suppress(OSError):
                size += path.lstat().st_size
        return size

    # -- taking away ------------------------------------------------------------------------------------------------

    def remove(self, name: str) -> bool:
        """Remove a letter; False if it was gone already."""
        with self._lock:
            self._forget(name)
            return self._unlink(name)

    def _unlink(self, name: str) -> bool:
        if not NAME.fullmatch(name):
            return False
        try:
            # The reason first: a message without one is no letter any more, one without a message would be broken.
            (self.folder / f"{name}.json").unlink()
        except FileNotFoundError:
            return False
        finally:
            (self.folder / f"{name}.message").unlink(missing_ok=True)
            self._files.pop(name, None)
        return True

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Keep other processes from replaying the same letters; :class:`ConfigError` if one does. Ends with us."""
        if not self.folder.is_dir():
            yield
            return
        with (self.folder / ".replaying").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                text = "its dead letters are being replayed already; wait until that run is done"
                raise ConfigError(f"{self.folder}: {text}") from None
            yield


def chosen(store: DeadLetters, words: Iterable[str] = (), node: str | None = None) -> LettersFound:
    """Return the letters that these words name, or all; those of one node only, if it is named."""
    names = tuple(words)
    found = store.find() if not names else LettersFound([store.get(word) for word in dict.fromkeys(names)], [])
    return LettersFound([letter for letter in found.letters if node is None or letter.node == node], found.strange)


def _again(before: DeadLetter, reason: Mapping[str, Any]) -> dict[str, Any]:
    """What is different when a letter comes back: who was not even tried still died of what he died of before."""
    again: dict[str, Any] = {"replays": before.replays + 1}
    if reason.get("attempts") == 0:
        kept = ("error", "text", "attempts", "worker", "traceback")
        again |= {name: getattr(before, name) for name in kept}
        again["note"] = f"replayed, and not tried: {reason.get('text', '')}"
    return again


def _write(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, also when a link lies in its place."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _content(path: Path) -> bytes:
    """Read a plain file. A link could lead anywhere, and a pipe would never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("is no plain file")
        return file.read()


def _written(path: Path) -> float:
    with suppress(OSError):
        return path.lstat().st_mtime
    return 0.0
