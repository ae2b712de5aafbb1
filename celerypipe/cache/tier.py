"""The second tier: entries and blobs as files, on a disk or in an object store, through fsspec.

It is written behind everybody's back and looked at after a miss in Redis. It is trusted no more than Redis: the same
seals, the same limits. Nothing is removed from it here; a ``ttl`` counts there too.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from celerypipe.cache.entry import ENTRY_LIMIT, Bulk, SealedEntry, opened
from celerypipe.cache.seal import Refused, Seal
from celerypipe.codec import Content
from celerypipe.redis.secret import hidden_in

#: Failures in a row after which it is left alone, and for how many seconds.
PATIENCE = 3
PAUSE = 30.0


class Tier:
    """Files below one URL. Each method may take long, and raises what fsspec raises."""

    def __init__(self, url: str, seal: Seal, say: Callable[[str, str], None]) -> None:
        self._url = url
        self._seal = seal
        self._say = say
        self._lock = threading.Lock()
        self._files: Any = None
        self._root = ""
        self._failures = 0
        self._rests_until = 0.0

    @property
    def rests(self) -> bool:
        """Did it fail too often just now?"""
        return time.monotonic() < self._rests_until

    def get(self, fingerprint: str) -> SealedEntry | None:
        """Return what is kept, verified, with its large bytes."""
        data = self._try(lambda: self._read(self._entry(fingerprint), ENTRY_LIMIT + 1))
        if data is None:
            return None
        try:
            entry = opened(self._seal, fingerprint, data)
            body = b""
            if (blob := entry.head.blob) is not None:
                body = self._try(lambda: self._read(self._blob(blob), blob.size + 1)) or b""
                blob.check(body)
        except Refused as refused:
            text = f"the second place of the cache has entries that {refused.kind}: they count as misses"
            self._say(text, text)
            return None
        return SealedEntry(entry.head, data, body)

    def put(self, fingerprint: str, entry: SealedEntry) -> None:
        """Keep an entry; its blob first."""
        blob = entry.head.blob
        if blob is not None:
            self._try(lambda: self._write(self._blob(blob), entry.body, new=True))
        self._try(lambda: self._write(self._entry(fingerprint), entry.data))

    def _try(self, work: Callable[[], Any]) -> Any:
        if self.rests:
            return None
        try:
            self._open()
            found = work()
        except FileNotFoundError:
            self._failures = 0
            return None
        except Exception as error:
            self._failures += 1
            if self._failures >= PATIENCE or isinstance(error, ImportError):
                self._rests_until = time.monotonic() + PAUSE
                why = hidden_in(str(error))  # a store may quote its address
                self._say(f"the second place of the cache does not work, and is not used for a while: {why}", "tier")
            raise
        self._failures = 0
        return found

    def _open(self) -> None:
        with self._lock:
            if self._files is None:
                try:
                    core = importlib.import_module("fsspec.core")
                except ImportError:
                    raise ImportError("it needs the package fsspec: pip install 'celerypipe[cache]'") from None
                files, root = core.url_to_fs(self._url)
                self._root = root.rstrip("/")
                self._files = files

    def _entry(self, fingerprint: str) -> str:
        return f"{self._root}/entries/{fingerprint[-2:]}/{fingerprint}"

    def _blob(self, blob: Bulk) -> str:
        return f"{self._root}/blobs/{blob.digest[:2]}/{blob.digest}"

    def _read(self, path: str, most: int) -> bytes:
        found: bytes = self._files.cat_file(path, start=0, end=most)
        return found

    def _write(self, path: str, content: Content, *, new: bool = False) -> None:
        if new and self._files.exists(path) and self._files.size(path) == len(content):
            return
        kinds = self._files.protocol
        if "file" not in ((kinds,) if isinstance(kinds, str) else kinds):
            self._files.pipe_file(path, bytes(content))
            return
        # On a disk a file could be read half written.
        folder, _, name = path.rpartition("/")
        self._files.makedirs(folder, exist_ok=True)
        beside = f"{folder}/.{name}.{os.urandom(6).hex()}"
        self._files.pipe_file(beside, bytes(content))
        os.replace(beside, path)
