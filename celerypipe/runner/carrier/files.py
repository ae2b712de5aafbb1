"""The files that a run sends: each content goes to Redis before the first message that needs it, and once meanwhile."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from itertools import islice

from celerypipe.errors import CodecError
from celerypipe.mailbox.blob import files as file_store
from celerypipe.message.files import Arrived, File, Origin
from celerypipe.redis import keys
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Broken, Client, accepted, connect, said

#: Seconds between two renewals.
RENEW = keys.DATA_TTL / 12_000
#: So many contents may be forgotten late: looking for them costs time.
SLACK = 64


class FileSender:
    """Sends files for one run and keeps them alive as long as a message has them: one that is out, or that what came
    out can be made again of. ``over`` waits so long, and tells whether the run is over.
    """

    def __init__(self, address: Address, over: Callable[[float], bool], say: Callable[[str], None]) -> None:
        self._address = address
        self._over = over
        self._say = say
        #: What is there until the run ends, and the files of messages, by content: several may have the same one.
        self._kept: dict[str, File] = {}
        self._passing: dict[str, list[weakref.ref[File]]] = {}
        self._sweep_at = SLACK
        self._looking = threading.Lock()
        self._sending = threading.Lock()
        self._renewed = 0.0

    @property
    def held(self) -> int:
        """Of how many contents something is known here."""
        return len(self._kept.keys() | self._passing.keys())

    def place(self, file: File) -> Arrived | None:
        """Return where a file is that comes back, and lets it live on; None: it was not sent, or nobody had it more."""
        with self._looking:
            known = self._known(file.digest)
        return Arrived(lambda _: known) if known is not None else None

    def send(self, files: Sequence[File], *, keep: bool = False) -> None:
        """See that these are in Redis; the calling thread waits for it. :class:`CodecError` if one cannot be sent.

        ``keep``: they stay until the run ends.
        """
        for file in files:
            if self._hold(file, keep=keep):
                continue
            with self._sending:
                if not self._hold(file, keep=keep):
                    self._send(file)
                    self._hold(file, keep=keep, sent=True)

    def _hold(self, file: File, *, keep: bool, sent: bool = False) -> bool:
        """Let it live on with what has the same content, if that is there; ``sent``: it is itself."""
        with self._looking:
            if not sent and self._known(file.digest) is None:
                return False
            if keep:
                self._kept.setdefault(file.digest, file)
                return True
            files = self._passing.get(file.digest, [])
            if not any(each() is file for each in files):
                self._passing[file.digest] = [*(each for each in files if each()), weakref.ref(file)]
            if len(self._passing) >= self._sweep_at:
                self._sweep()
            return True

    def _known(self, digest: str) -> File | None:
        """The file of this content that can be sent again, if one of them can."""
        files = [file for each in self._passing.get(digest, ()) if (file := each()) is not None]
        if digest in self._kept:
            files.append(self._kept[digest])
        return next((file for file in files if isinstance(file.place, Origin)), files[0] if files else None)

    def _sweep(self) -> None:
        """Forget what no message has any more."""
        for digest in [digest for digest, files in self._passing.items() if not any(each() for each in files)]:
            del self._passing[digest]
        self._sweep_at = 2 * len(self._passing) + SLACK

    def _send(self, file: File) -> None:
        told = False
        while not self._over(0):
            try:
                with connect(self._address, name="celerypipe-files") as client:
                    _store(client, file)
                return
            except Broken as error:
                if not told:
                    self._say(f"the file {file.name!r} cannot be sent: {said(error)}; trying again until it works")
                told = True
                self._over(0.5)

    def doubt(self) -> None:
        """Redis may have lost them."""
        self._renewed = 0.0

    def renew(self, client: Client) -> list[File]:
        """Let all of them live on, now and then; return those that Redis lost."""
        if time.monotonic() - self._renewed < RENEW:
            return []
        with self._looking:
            self._sweep()
            files = [file for each in self._kept.keys() | self._passing.keys() if (file := self._known(each))]
        if not files:
            return []
        self._renewed = time.monotonic()
        commands = [file_store.renewing(client.names, file) for file in files]
        answers = iter(accepted(client.together(*[each for some in commands for each in some])))
        return [file for file, some in zip(files, commands, strict=True) if not all(list(islice(answers, len(some))))]

    def send_again(self, files: Sequence[File]) -> None:
        """Send what Redis lost; for a thread that nothing waits for."""
        for file in files:
            try:
                self._send(file)
            except CodecError as error:  # who waits for it hears of that too, a while later
                self._say(f"Redis lost the file {file.name!r}, and it cannot be sent again: {error}")


def _store(client: Client, file: File) -> None:
    if file_store.is_there(client, file):
        return
    if not isinstance(file.place, Origin):
        raise CodecError(
            f"the content of the file {file.name!r} is neither here nor in Redis any more; "
            "send celerypipe.file(path) anew"
        )
    file_store.put(client, file, file.place)
