"""``celery -A celerypipe flower``, a real one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from celerypipe.embedded.server import private_folder
from tests.servers.checkout import ROOT
from tests.servers.patience import eventually


@contextmanager
def running_flower(url: str, folder: Path) -> Iterator[httpx.Client]:
    """Flower of this Redis in the folder, behind a unix socket, whose path must be short; and a client for it."""
    behind = private_folder()
    place, log = behind / "flower.sock", folder / "flower.log"
    environment = {
        **os.environ,
        "CELERYPIPE_REDIS_URL": url,
        "PYTHONPATH": str(ROOT),
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    command = [sys.executable, "-m", "celery", "-A", "celerypipe", "flower", f"--unix-socket={place}"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=file, stderr=file)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), base_url="http://flower", timeout=20) as client:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            with suppress(httpx.ConnectError):  # its socket is there a moment before it listens
                return place.exists() and client.get("/healthcheck").status_code == 200
            return False

        try:
            eventually(answers, "an answer of Flower")
            yield client
        finally:
            process.terminate()
            process.wait(20)
            shutil.rmtree(behind)
