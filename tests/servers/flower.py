"""``celery -A celerypipe flower``, a real one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from celerypipe.embedded.server import private_folder
from tests.servers.command import start
from tests.servers.patience import eventually


@contextmanager
def running_flower(url: str, folder: Path) -> Iterator[httpx.Client]:
    """Flower of this Redis in the folder, behind a unix socket, whose path must be short; and a client for it."""
    behind = private_folder()
    place = behind / "flower.sock"
    words = ["-m", "celery", "-A", "celerypipe", "flower", f"--unix-socket={place}"]
    flower = start(*words, cwd=folder, CELERYPIPE_REDIS_URL=url, FLOWER_UNAUTHENTICATED_API="true")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), base_url="http://flower", timeout=20) as client:

        def answers() -> bool:
            assert flower.process.poll() is None, flower.err.read_text()
            with suppress(httpx.ConnectError):  # its socket is there a moment before it listens
                return place.exists() and client.get("/healthcheck").status_code == 200
            return False

        try:
            eventually(answers, "an answer of Flower")
            yield client
        finally:
            flower.process.terminate()
            flower.finish(20)
            shutil.rmtree(behind)
