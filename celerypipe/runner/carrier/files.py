"""The files that a run sends: each content goes to Redis once, before the first message that needs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice

from celerypipe.errors import CodecError
from celerypipe.mailbox.blob import files as file_store
from celerypipe.message.files import File, Here, Origin
from celerypipe.redis import keys
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Broken, Client, accepted, connect, said

#: Seconds between two renewals.
RENEW = keys.DATA_TTL / 12_000


class FileSender:
    """Sends files for one run and keeps them alive. ``over`` waits so long, and tells whether the run is over."""

    def __init__(self, address: Address, over: Callable[[float], bool], say: Callable[[str], None]) -> None:
        self._address = address
        self._over = over
        self._say = say
        self._sent: dict[str, File] = {}
        self._sending = threading.Lock()
        self._renewed = 0.0

    def __call__(self, file: File) -> Here:
        """Return where a file is that comes back."""
        return Here(self._sent.get(file.digest, File(file.digest, file.name, file.size)).path)

    def send(self, files: Sequence[File]) -> None:
        """See that these are in Redis; the calling thread waits for it. :class:`CodecError` if one cannot be sent."""
        for file in files:
            if file.digest not in self._sent:
                with self._sending:
                    if file.digest not in self._sent:
                        self._send(file)
                        self._sent[file.digest] = file

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
        files = list(self._sent.values())
        if not files or time.monotonic() - self._renewed < RENEW:
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
