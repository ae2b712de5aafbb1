"""What a soak breaks: a Redis, workers that somebody starts again when they end, and runs beside the first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from celerypipe.redis.namespace import VARIABLE
from tests.servers import ROOT, RedisServer, RunningWorker, eventually, launch_worker
from tests.servers.processes import alive, birth, command_line, descendants, parent
from tests.servers.proxy import Proxy
from tests.soak.witness import Witness

#: Pool, slots and line to Redis of the workers, in turn; the last is of another namespace.
KINDS = (("prefork", 2, "proxy"), ("solo", 1, "socket"), ("threads", 2, "socket"), ("solo", 1, "socket"))
QUEUE = "soak"
CONFIG = 'imports = ["tests.nodes.remote", "tests.nodes.soaking"]\nexit_when_stuck = true\n'
#: Seconds after which the proxy ends a line that nobody uses.
IDLE = 4.0
#: The other namespace, and what its nodes do otherwise.
OTHER = {VARIABLE: "other", "CELERYPIPE_SOAK": "-other"}


@dataclass
class World:
    """A Redis, a proxy before it, and workers of one queue; a thread starts anew what ends, as a supervisor does."""

    folder: Path
    redis: RedisServer = field(default_factory=RedisServer)
    workers: list[RunningWorker] = field(default_factory=list)
    bystanders: list[subprocess.Popen[bytes]] = field(default_factory=list)
    #: Pid and birth of every process that belonged to it.
    born: set[tuple[int, int]] = field(default_factory=set)
    #: Pids of those that stood still for a while, or began anew, and may have been taken for dead meanwhile.
    stopped: set[int] = field(default_factory=set)
    #: How often Redis was started.
    lives: int = 0
    #: Nothing is started anew any more; the one who looked after it is through; it may end, and Redis with it.
    _leaving: threading.Event = field(default_factory=threading.Event)
    _through: threading.Event = field(default_factory=threading.Event)
    _gone: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.proxy = Proxy(self.redis.folder / "redis.sock", idle=IDLE)
        self.witness = Witness(self.redis.url, self.stopped)

    def open(self) -> None:
        """Start all of it."""
        threading.Thread(target=self._mind, daemon=True).start()
        eventually(lambda: self.lives, "Redis")
        self.proxy.__enter__()
        for kind in range(len(KINDS)):
            self.workers.append(self._launch(kind, wait=kind < len(KINDS) - 1))
        self._run_in_the_other()
        eventually(self.names.exists, "what the other namespace's run sends")
        self.witness.start()

    def close(self) -> None:
        """End all of it; raises AssertionError when a worker does not end on SIGTERM."""
        self._leaving.set()
        self._through.wait()
        if self.witness.is_alive():
            self.witness.stop()
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
            self.proxy.__exit__(None, None, None)
            self.redis.remove()
            self._gone.set()

    def kill_redis(self) -> None:
        """``kill -9``, and wait until it is there again."""
        lives, server = self.lives, self.redis.process
        assert server is not None
        server.kill()
        eventually(lambda: self.lives > lives, "Redis")

    def stand_by(self) -> subprocess.Popen[bytes]:
        """Start a run of its own on the same queue, for somebody to kill."""
        source = {"mark": "data_streamer", "configuration": {"count": 1_000_000, "rate": 100}}
        return self._run_beside(source, {"mark": "tests.nodes.remote.Echo"})

    def _run_in_the_other(self) -> None:
        sink = {"name": "names", "type": "sink", "mark": "tests.nodes.soaking.Names"}
        sink["configuration"] = {"path": str(self.names)}  # type: ignore[assignment]
        there = {"mark": "tests.nodes.soaking.Soaked", "configuration": {"name": "n0", "modulus": 0}}
        self._run_beside({"mark": "tests.nodes.soaking.Numbers"}, there, sink, **OTHER)

    @property
    def names(self) -> Path:
        """Where the run of the other namespace writes what its nodes added."""
        return self.folder / "names"

    def strangers(self) -> str:
        """Say what came to the run of the other namespace that is not of there, or that nothing came; else empty."""
        lines = self.names.read_text().splitlines() if self.names.exists() else []
        wrong = [line for line in lines if line != "n00-other"]
        if wrong:
            return f"the run of the other namespace got {wrong[:3]}"
        ended = self.bystanders[0].poll()
        return "" if lines and ended is None else f"the run of the other namespace got {len(lines)}, ended with {ended}"

    def _run_beside(
        self, source: dict[str, Any], there: dict[str, Any], *sinks: dict[str, Any], **variables: str
    ) -> subprocess.Popen[bytes]:
        nodes = [
            {"name": "numbers", "type": "source", **source},
            {"name": "there", "type": "proc", **there, "warped": True, "warp_configuration": {"queue": QUEUE}},
            *sinks,
        ]
        links = [{"from": one["name"], "to": to["name"]} for one, to in pairwise(nodes)]
        path = self.folder / f"beside{len(self.bystanders)}.json"
        path.write_text(json.dumps({"pipeline": {"name": "beside", "nodes": nodes, "links": links}}))
        command = [sys.executable, "-m", "celerypipe", "run", str(path), "--redis", self.redis.url, "--json"]
        environment, quiet = {**os.environ, **variables}, subprocess.DEVNULL
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)
        self.bystanders.append(process)
        self._note(process.pid)
        return process

    def left(self) -> list[int]:
        """Those of its processes that live."""
        return [pid for pid, born in tuple(self.born) if alive(pid) and birth(pid) == born]

    def orphans(self) -> str:
        """Say which of its processes live on after who started them; they have a while to end."""
        with suppress(AssertionError):
            eventually(lambda: not self._orphans(), timeout=10.0)
        return ", ".join(f"process {pid} lives on: {command_line(pid)!r}" for pid in self._orphans())

    def _orphans(self) -> list[int]:
        return [pid for pid in self.left() if parent(pid) == 1]

    def everything(self, worker: RunningWorker) -> list[int]:
        """The processes of a worker, itself first."""
        return [worker.process.pid, *sorted(descendants(worker.process.pid))]

    def _note(self, *pids: int) -> None:
        self.born.update((pid, born) for pid in pids if (born := birth(pid)))

    def _launch(self, kind: int, *, wait: bool) -> RunningWorker:
        pool, slots, line = KINDS[kind]
        url = self.proxy.url if line == "proxy" else self.redis.url
        env = OTHER if kind == len(KINDS) - 1 else None
        worker = launch_worker(
            QUEUE, url=url, pool=pool, concurrency=slots, config=CONFIG, wait=wait, cwd=ROOT, env=env
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
