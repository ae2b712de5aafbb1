"""An authority of the tests' own, and a door that lets only those in who show a certificate of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

#: A key that is made at once; one of RSA is looked for.
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass
class Authority:
    """Signs certificates with the ``openssl`` of this machine; without one it skips, or fails under CI."""

    folder: Path

    def __post_init__(self) -> None:
        if shutil.which("openssl") is None:
            reason = "no openssl here to sign certificates with: apt install openssl"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
        self.folder.mkdir(parents=True, exist_ok=True)
        common = (*NEW_KEY, "-keyout", self.folder / "ca.key", "-days", "2")
        uses = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # Python 3.13 asks an authority for it
        self._openssl("req", "-x509", *common, *uses, "-out", self.certificate, "-subj", "/CN=tests of celerypipe")

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def sign(self, name: str) -> tuple[Path, Path]:
        """Return a certificate for localhost and its key."""
        key, wish, pem = (self.folder / f"{name}.{suffix}" for suffix in ("key", "csr", "pem"))
        names = self.folder / "names"
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self._openssl("req", *NEW_KEY, "-keyout", key, "-out", wish, "-subj", f"/CN={name}")
        signing = ("-CA", self.certificate, "-CAkey", self.folder / "ca.key", "-CAcreateserial", "-days", "2")
        self._openssl("x509", "-req", "-in", wish, *signing, "-out", pem, "-extfile", names)
        return pem, key

    @staticmethod
    def _openssl(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=30)


class Door:
    """TLS before a unix socket, as stunnel and most hosted services have it; asks everybody for a certificate."""

    def __init__(self, authority: Authority, socket: Path) -> None:
        self.port = 0
        self._socket = socket
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(*authority.sign("server"))
        self._loop = asyncio.new_event_loop()
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._open.wait(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        server = await asyncio.start_server(self._admit, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._open.set()
        await self._end.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # what they closed hears of that in the next round of the loop

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            inner_reader, inner_writer = await asyncio.open_unix_connection(str(self._socket))
            writers.append(inner_writer)
            ways = ((reader, inner_writer), (inner_reader, writer))
            await asyncio.wait([asyncio.ensure_future(self._pass(*way)) for way in ways], return_when="FIRST_COMPLETED")
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in writers:
                each.close()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 18):
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
