"""What a soak breaks: a Redis, workers that somebody starts again when they end, and a second run beside the first."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.nodes.remote import CONFIG
from tests.servers import ROOT, RedisServer, RunningWorker, eventually, launch_worker
from tests.servers.processes import alive, birth, descendants

#: Pool and slots of the workers, in turn.
KINDS = (("prefork", 2), ("solo", 1), ("threads", 2))
QUEUE = "soak"


@dataclass
class World:
    """A Redis and workers of one queue; a thread starts anew what ends, as a supervisor does."""

    redis: RedisServer = field(default_factory=RedisServer)
    workers: list[RunningWorker] = field(default_factory=list)
    bystanders: list[subprocess.Popen[bytes]] = field(default_factory=list)
    #: Pid and birth of every process that belonged to it.
    born: set[tuple[int, int]] = field(default_factory=set)
    #: How often Redis was started.
    lives: int = 0
    #: Nothing is started anew any more; the one who looked after it is through; it may end, and Redis with it.
    _leaving: threading.Event = field(default_factory=threading.Event)
    _through: threading.Event = field(default_factory=threading.Event)
    _gone: threading.Event = field(default_factory=threading.Event)

    def open(self) -> None:
        """Start all of it."""
        threading.Thread(target=self._mind, daemon=True).start()
        eventually(lambda: self.lives, "Redis")
        for kind in range(len(KINDS)):
            self.workers.append(self._launch(kind, wait=True))

    def close(self) -> None:
        """End all of it; raises AssertionError when a worker does not end on SIGTERM."""
        self._leaving.set()
        self._through.wait()
        for bystander in self.bystanders:
            bystander.kill()
            bystander.wait()
        for worker in self.workers:
            self._note(*descendants(worker.process.pid))
        for worker in self.workers:
            worker.process.terminate()
        try:
            for worker in self.workers:
                worker.stop()
        finally:
            for worker in self.workers:
                worker.kill()
            self.redis.remove()
            self._gone.set()

    def kill_redis(self) -> None:
        """``kill -9``, and wait until it is there again."""
        lives, server = self.lives, self.redis.process
        assert server is not None
        server.kill()
        eventually(lambda: self.lives > lives, "Redis")

    def stand_by(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start a run of its own on the same queue, for somebody to kill."""
        path = folder / "bystander.json"
        path.write_text(json.dumps(BYSTANDER))
        command = [sys.executable, "-m", "celerypipe", "run", str(path), "--redis", self.redis.url, "--json"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.bystanders.append(process)
        self._note(process.pid)
        return process

    def left(self) -> list[int]:
        """Those of its processes that live."""
        return [pid for pid, born in self.born if alive(pid) and birth(pid) == born]

    def _note(self, *pids: int) -> None:
        self.born.update((pid, birth(pid)) for pid in pids)

    def _launch(self, kind: int, *, wait: bool) -> RunningWorker:
        pool, slots = KINDS[kind]
        worker = launch_worker(
            QUEUE, url=self.redis.url, pool=pool, concurrency=slots, config=CONFIG, wait=wait, cwd=ROOT
        )
        self._note(worker.process.pid)
        return worker

    def _mind(self) -> None:
        self._start_again_what_ends()
        self._through.set()
        self._gone.wait()

    def _start_again_what_ends(self) -> None:
        while not self._leaving.wait(0.2):
            if self.redis.process is None or self.redis.process.poll() is not None:
                self.redis.start()  # by this thread, since it ends with the thread that started it
                self.lives += 1
            for kind, worker in enumerate(self.workers):
                self._note(*descendants(worker.process.pid))
                if worker.process.poll() is not None:
                    worker.kill()  # and the children that outlived it
                    with suppress(OSError):
                        self.workers[kind] = self._launch(kind, wait=False)


BYSTANDER = {
    "version": "1",
    "plugins": [],
    "pipeline": {
        "name": "bystander",
        "id": "1",
        "nodes": [
            {
                "name": "numbers",
                "type": "source",
                "mark": "data_streamer",
                "configuration": {"count": 1_000_000, "rate": 100},
            },
            {
                "name": "there",
                "type": "proc",
                "mark": "tests.nodes.remote.Echo",
                "warped": True,
                "warp_configuration": {"queue": QUEUE},
            },
        ],
        "links": [{"from": "numbers", "to": "there"}],
    },
}
