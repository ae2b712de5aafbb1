"""``files``: a source that reads, and a sink that writes, files of any kind, whole."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

from celerypipe.contract.contract import Sink, Source
from celerypipe.contract.positions import Position
from celerypipe.contract.readings import Readings
from celerypipe.message.message import Message
from celerypipe.message.payload import Bytes
from celerypipe.nodes.parts.naming import Naming, write_whole
from celerypipe.nodes.parts.selection import Selection


class FilesSource(Source):
    """Reads files of any kind and sends the content of each as :class:`Bytes`.

    ``meta``: ``name`` (the file's name without its suffix), ``file`` (with it) and ``path``; ``version`` counts files
    from 0. A file that cannot be read is an error that names it: ``on_error`` of the node decides, and with
    ``skip`` the others are sent. A run of it can be resumed: files are known by their paths, so that some may come or
    go meanwhile.

    ``paths``: the files, in this order
    ``folder``: instead of ``paths``: a folder, its files sorted by name; hidden ones (``.a``, ``._a``) are left out
    ``pattern``: which files of the folder, such as ``"*.pdf"`` or ``"**/*"`` (with folders within); hidden files
    are taken where a part of it begins with a dot
    """

    def __init__(self, paths: list[str] | None = None, folder: str | None = None, pattern: str | None = None) -> None:
        self.files = Selection(paths, folder, pattern, what="file")

    def configure(self) -> None:
        """Find the files; :class:`ConfigError` names those that are missing."""
        self.files.find(self.reach)

    def position(self, message: Message) -> str:
        """Return the path of the file."""
        return self.files.names[message.version]

    def seek(self, through: Container[Position]) -> None:
        """Leave out these files."""
        self.files.seek(through)

    def total(self) -> int:
        """Return the number of files, without those that are left out."""
        return self.files.total()

    def messages(self) -> Iterator[Message]:
        """Yield one message a file."""
        return Readings(self.message, self.files.wanted())

    def message(self, index: int) -> Message:
        """Read a file; OSError when it cannot be read."""
        path = self.files.paths[index]
        meta = {"name": path.stem, "file": path.name, "path": str(path)}
        return Message(Bytes(path.read_bytes()), meta=meta, version=index)

    def stop(self) -> None:
        """Read no further file."""
        self.files.stop()


class FilesSink(Sink):
    """Writes each payload to a file of its own, which appears whole or not at all: :class:`Bytes`, bytes or a text.

    A file of that name that was there before is replaced; one that this run wrote is not: the second message fails.
    Texts are written as UTF-8.

    ``folder``: where to; a relative one starts at the current folder; missing folders are made. Default: the node's
    own folder in the pipeline's folder
    ``pattern``: the file's name, as for ``str.format``: fields are the entries of ``meta``, and ``id``, ``origin``,
    ``sequence`` and ``version``, such as ``"{name}.txt"``. In texts from a message only letters, digits, ``_``, ``-``
    and ``.`` are kept, others become ``_``: no message can name a file outside the folder
    """

    tell_apart = "write a 'pattern' that tells them apart, such as '{sequence}-{file}'"

    def __init__(self, folder: str | None = None, pattern: str = "{file}") -> None:
        self.naming = Naming("files", folder, pattern)

    def configure(self) -> None:
        """Settle where to; :class:`ConfigError` when nobody says it."""
        self.naming.settle(self.folder, self.reach)

    def warmup(self) -> None:
        """Make the folder; :class:`ConfigError` when that cannot be done."""
        self.naming.make()

    def update(self, message: Message) -> None:
        """Write the file; TypeError for another payload, LookupError when ``meta`` lacks an entry of ``pattern``."""
        content = _content(message.payload)
        write_whole(self.naming.target(message, self.reach), content, message)

    def place(self, message: Message) -> str:
        """Return the file that the message goes to."""
        return self.naming.place(message)


def _content(payload: Any) -> bytes:
    if isinstance(payload, Bytes):
        payload = payload.cnt
    if isinstance(payload, str):
        return payload.encode("utf-8", "surrogatepass")
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload)
    raise TypeError(
        f"files writes Bytes, bytes or a text, not {type(payload).__name__}; convert it in a node before, or use "
        "json_lines for values"
    )
