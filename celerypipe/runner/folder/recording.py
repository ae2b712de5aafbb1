"""What each node of a run got and made of it, so that one of these hops can be run again by itself.

A folder a node: for each message ``<number>-<id>.in``, what it got, and ``.out``, what came of it, as the codec writes
them; or ``.error``, why nothing did. ``recording.json`` beside them is the pipeline. Only who started the run can read
it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from celerypipe import codec
from celerypipe.catalogue.instance import brief
from celerypipe.contract.reach import file_name
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import CodecError, ConfigError, did_you_mean
from celerypipe.message.message import Message
from celerypipe.process.version import VERSION

#: What a recording says of its run.
ABOUT = "recording.json"
#: Bytes that are recorded if nobody says so.
MOST = 1_000_000_000


class Recording:
    """Records a run into a folder, until ``most`` bytes are written; ``say`` is told once that it is full."""

    def __init__(self, folder: Path, most: int, say: Callable[[str], None]) -> None:
        self.folder = folder.absolute()
        self._left = most
        self._most = most
        self._say = say
        self._lock = threading.Lock()
        self._names: dict[tuple[str, str], str] = {}
        #: Nodes of which it was said that something cannot be recorded.
        self._told: set[str] = set()

    def begin(self, pipeline: Pipeline, run: str) -> None:
        """Make the folder. :class:`ConfigError`: it cannot be made, or has something in it."""
        about = {
            "celerypipe": VERSION,
            "run": run,
            "cwd": str(Path.cwd()),
            "plugins": [str(folder) for folder in pipeline.plugin_folders],
            "pipeline": pipeline.to_dict(),
        }
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                raise ConfigError(f"{self.folder} is not empty; name a new folder for the recording")
            self._write(ABOUT, json.dumps(about, indent=2, default=str).encode())
            for node in pipeline.nodes:
                (self.folder / file_name(node.name)).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the recording cannot be written to {self.folder}: {error.strerror}") from None

    def came(self, node: str, message: Message) -> None:
        """A node is about to get a message."""
        name = f"{file_name(node)}/{max(message.sequence, 0):06d}-{file_name(message.id)}"
        if self._keep(f"{name}.in", [message]):
            self._names[node, message.id] = name

    def made(self, node: str, message: Message, outputs: Sequence[Message]) -> None:
        """This came of it."""
        if name := self._names.pop((node, message.id), ""):
            self._keep(f"{name}.out", outputs)

    def failed(self, node: str, message: Message, error: BaseException) -> None:
        """Nothing came of it."""
        if name := self._names.pop((node, message.id), ""):
            with contextlib.suppress(OSError):
                text = brief(error).removeprefix(f"{node}: ")
                self._write(f"{name}.error", text.encode("utf-8", "backslashreplace"))

    def _keep(self, name: str, messages: Sequence[Message]) -> bool:
        if self._left <= 0:
            return False
        try:
            data = codec.encode_joined(messages)
        except CodecError as error:  # what only travels here
            node = name.partition("/")[0]
            if node not in self._told:
                self._told.add(node)
                self._say(f"{name}: {error}; it is not recorded, nor are others of {node} like it")
            return False
        with self._lock:
            if len(data) > self._left:
                self._left = 0
                self._say(f"the recording in {self.folder} has {self._most:,} bytes, and nothing more is recorded")
                return False
            self._left -= len(data)
        try:
            self._write(name, data)
        except OSError as error:
            self._left = 0
            self._say(f"nothing more is recorded: {error}")
            return False
        return True

    def _write(self, name: str, data: bytes) -> None:
        with open(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)


class RecordedHop(NamedTuple):
    """A message at a node as it was recorded. ``outputs``: None if nothing came of it, and then ``error`` says why."""

    message: Message
    outputs: Sequence[Message] | None
    error: str


def about(folder: Path) -> dict[str, Any]:
    """Return what a recording says of its run; :class:`ConfigError`: this is none."""
    try:
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return {"cwd": str(found["cwd"]), "plugins": list(found["plugins"]), "pipeline": dict(found["pipeline"])}
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} is no recording: there is no {ABOUT} in it; make one with celerypipe run --record FOLDER"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / ABOUT} cannot be read: {error}") from None


def hop_in(folder: Path, node: str, word: str) -> RecordedHop:
    """Return what was recorded of one message at a node; ``word``: its number, its id, or the beginning of that."""
    place = folder / file_name(node)
    names = sorted(each.stem for each in place.glob("*.in")) if place.is_dir() else []
    ids = {name: name.partition("-") for name in names}
    chosen = [name for name, (number, _, message) in ids.items() if word.isdigit() and int(number) == int(word)]
    chosen = chosen or [name for name, (_, _, message) in ids.items() if message == word]
    chosen = chosen or [name for name, (_, _, message) in ids.items() if word and message.startswith(word)]
    if not names:
        raise ConfigError(f"nothing is recorded of node {node!r} in {folder}")
    if len(chosen) != 1:
        numbers = [number.lstrip("0") or "0" for number, _, _ in ids.values()]
        if chosen:
            several = ", ".join(ids[name][2] for name in chosen[:10])
            raise ConfigError(f"message {word!r} of node {node!r} is one of several: {several}; write its id")
        hint = did_you_mean(word, numbers)
        raise ConfigError(
            f"no message {word!r} of node {node!r} is recorded{hint}; there are {len(names)}: {', '.join(numbers[:10])}"
        )
    (name,) = chosen
    try:
        (message,) = codec.decode((place / f"{name}.in").read_bytes())
        out, error = place / f"{name}.out", place / f"{name}.error"
        outputs = codec.decode(out.read_bytes()) if out.exists() else None
        return RecordedHop(message, outputs, error.read_text(encoding="utf-8") if error.exists() else "")
    except (OSError, ValueError, CodecError) as trouble:
        raise ConfigError(f"{place / name} cannot be read: {trouble}") from None


def alike(some: Sequence[Message], others: Sequence[Message]) -> bool:
    """Do these messages carry the same payloads? Ids and times never are, and notes may say where it was."""
    payloads = [[codec.encode_value(each.payload) for each in messages] for messages in (some, others)]
    return payloads[0] == payloads[1]
