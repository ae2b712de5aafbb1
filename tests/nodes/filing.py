"""Nodes that are sent files, for real workers (``imports = ["tests.nodes.filing"]``)."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import celerypipe
from celerypipe import File, Message, Proc, Sink, node

#: What a worker of these nodes has in its configuration.
CONFIG = 'imports = ["tests.nodes.filing"]\n'


def files_in(value: Any) -> list[File]:
    """All files in a payload, at any depth."""
    if isinstance(value, File):
        return [value]
    if isinstance(value, dict):
        return [file for item in value.values() for file in files_in(item)]
    if isinstance(value, (list, tuple)):
        return [file for item in value for file in files_in(item)]
    return []


def made(folder: Path, name: str, size: int = 1000) -> File:
    """A file of a content that no other test has."""
    (folder / name).write_bytes(secrets.token_bytes(size))
    return celerypipe.file(folder / name)


class Read(Proc):
    """Sends, for each file in its payload: its path here, its content, whether it can be written to."""

    def update(self, message: Message) -> Message:
        """Read them."""
        found = []
        for file in files_in(message.payload):
            path = Path(file)
            found.append((os.fspath(file), path.read_bytes(), oct(path.stat().st_mode & 0o777), os.getpid()))
        return message.with_payload(found)


class Pass(Proc):
    """Sends on what it gets and looks into nothing."""

    def update(self, message: Message) -> Message:
        """Send it on."""
        return message


class Length(Proc):
    """Sends how many bytes each file has."""

    def update(self, message: Message) -> Message:
        """Count."""
        return message.with_payload([os.stat(file).st_size for file in files_in(message.payload)])


class Make(Proc):
    """Makes a file where it runs."""

    def update(self, message: Message) -> Message:
        """Make it."""
        path = Path(message.payload)
        path.write_text("made there")
        return message.with_payload(celerypipe.file(path))


class Kept(Sink):
    """Keeps what it gets."""

    got: list[Any] = []  # noqa: RUF012  # what a test looks at

    def update(self, message: Message) -> None:
        """Keep it."""
        self.got.append(message.payload)


class Say(Proc):
    """Prints how many bytes each file has, and sends nothing else."""

    def update(self, message: Message) -> Message:
        """Say it."""
        for file in files_in(message.payload):
            print(file.name, os.stat(file).st_size)
        return message.with_payload(None)


@node(queue="filing", version="1")
def lengths(files: Any, *more: Any) -> list[int]:
    """How many bytes each file has."""
    return [os.stat(file).st_size for file in files_in([files, more])]


@node(queue="filing", version="1", cache=True)
def content(file: File) -> tuple[str, bytes]:
    """Where it was read, and what is inside."""
    return os.fspath(file), Path(file).read_bytes()


@node(queue="filing", version="1", cache=True)
def passed(file: File) -> File:
    """It again."""
    return file
