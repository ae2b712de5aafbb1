"""Where the messages of a sink go: no two of one run to the same place, where the second would replace the first."""

from __future__ import annotations

import os
import struct
import threading
import unicodedata
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from celerypipe.catalogue.instance import brief, trace
from celerypipe.contract.contract import Node, Sink
from celerypipe.errors import NodeFailed
from celerypipe.message.message import Message

#: One note in a record: the digests of a place, and of the message that went there.
NOTE = struct.Struct("<QQ")
#: How two sinks are kept apart.
ANOTHER = "let one of the two nodes write to another folder"


class Taken:
    """The places that the messages of one run took, whichever of its sinks they went to."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: Place → the sink, and the number of its message.
        self.by: dict[int, tuple[str, int]] = {}
        #: The same, however letters are written: some file systems take ``A`` for ``a``.
        self.alike: set[int] = set()


class Places:
    """Where one sink's messages go in this run, and went in those that it goes on from; no other one goes there.

    ``sink`` returns a sink that tells the places, see :meth:`celerypipe.Sink.place`. ``taken``: those of the run;
    ``record``: where they are noted for one that goes on from this one.
    """

    def __init__(self, name: str, sink: Callable[[], Sink], taken: Taken, record: Path | None = None) -> None:
        self._name = name
        self._sink = sink
        self._taken = taken
        #: Place → what its message is known by in a run that goes on.
        self._keys: dict[int, int] = {}
        self._record = record
        if record is not None and record.exists():
            data = record.read_bytes()
            self._keys = dict(NOTE.iter_unpack(data[: len(data) - len(data) % NOTE.size]))
            taken.by.update(dict.fromkeys(self._keys, (name, -1)))

    def refusal(self, message: Message, key: str = "", *, letter: bool = False) -> NodeFailed | None:
        """Note where a message goes; or return why it may not go there.

        ``key``: what it is known by in a run that goes on, which may send it again; ``letter``: it died at this sink
        in another run, and so did not write what is there.
        """
        sink = self._sink()
        try:
            place = os.fsdecode(sink.place(message) or "")
            folder, file = os.path.split(place)
            where = os.path.join(os.path.realpath(folder), file)  # two sinks may spell one folder in two ways
        except Exception as error:  # noqa: BLE001  # user code: nobody knows what it would replace
            failure = self._refused(f"its place() failed: {brief(error)}", message)
            failure.remote_traceback, failure.__cause__ = trace(error), error
            return failure
        if not place:
            return None
        exact, alike, taken = _digest(where), _digest(unicodedata.normalize("NFC", where).casefold()), self._taken
        if key and self._keys.get(exact) == _digest(key):
            return None
        with taken.lock:
            if exact in taken.by or (alike in taken.alike and _is_called_otherwise(place)):
                other, first = taken.by.get(exact, (self._name, -1))
                here, cure = ("this run", sink.tell_apart) if other == self._name else (repr(other), ANOTHER)
                what = f"has {_numbered(first)} of {here} already, and {_numbered(message.sequence)} would replace it"
                return self._refused(f"{place} {what}; {cure}", message)
            if letter and os.path.lexists(place):
                what = f"is there already, and {_numbered(message.sequence)} would replace it"
                return self._refused(f"{place} {what}; move it away, or {sink.tell_apart}", message)
            taken.by[exact] = self._name, message.sequence
            taken.alike.add(alike)
        if self._record is not None and key:
            self._note(self._record, exact, _digest(key))
        return None

    def _note(self, record: Path, place: int, key: int) -> None:
        self._keys[place] = key
        with record.open("ab") as file:
            file.write(NOTE.pack(place, key))

    def _refused(self, text: str, message: Message) -> NodeFailed:
        return NodeFailed(f"{self._name}: {text}", node=self._name, message_id=message.id)


def has_places(node: type[Node]) -> bool:
    """Does a node of this class write to places of its own?"""
    return issubclass(node, Sink) and node.place is not Sink.place


def _numbered(sequence: int) -> str:
    return f"message {sequence}" if sequence >= 0 else "a message"


def _is_called_otherwise(place: str) -> bool:
    """Is there a file that answers to this name and is called otherwise?"""
    folder, name = os.path.split(place)
    try:
        return os.path.lexists(place) and name not in os.listdir(folder or ".")
    except OSError:
        return False


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
