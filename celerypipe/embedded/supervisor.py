"""The child process of ``Embedded``: it owns a private Redis and some workers, and ends them all with itself.

Started as ``python -m celerypipe.embedded.supervisor``. Its first line of standard input is a :class:`Plan` as JSON;
the end of standard input means that the parent left or died, whatever killed it, and is the signal to stop. A line in
between, ``{"restart": queue}``, ends a worker, once it is through with what it is at, for another one. Each line of its
standard output is a JSON object: ``{"event": text}`` for people, ``{"ready": url, "folder": path}``,
``{"failed": text}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celerypipe.embedded.guard import end_below, end_strangers, guarded
from celerypipe.embedded.resident import Resident
from celerypipe.embedded.server import (
    answers,
    find_redis_server,
    private_folder,
    redis_url,
    start_redis_server,
)
from celerypipe.errors import ConfigError
from celerypipe.heartbeat.descendants import NOTHING_STAYS
from celerypipe.process.parent import die_with_parent
from celerypipe.redis import keys

if TYPE_CHECKING:
    from celerypipe.embedded.witness import Witness

#: Deaths at boot, one after the other, after which a worker is given up while nobody waits for it yet.
BOOT_DEATHS = 5
#: Seconds all workers together may take to come up: a model library may be slow to import.
BOOT_SECONDS = 120.0
#: Seconds workers get to end by themselves.
GRACE = 3.0
#: Seconds between two looks at all of it: while somebody waits for it, and afterwards.
LOOK_SOON, LOOK = 0.02, 0.05
#: Seconds after which runs are told again that another worker comes.
TELL_EVERY = keys.SPAWNING_TTL / 4000


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start. ``queues``: one worker each, with so many slots (None: its own default)."""

    queues: dict[str, int | None]
    imports: dict[str, list[str]]
    environment: dict[str, str]
    log: str | None


class Supervisor:
    """Starts the residents, starts again what dies, stops all of them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.server = find_redis_server()
        if plan.log:
            Path(plan.log).mkdir(parents=True, exist_ok=True)
        self.folder = private_folder()
        self.url = redis_url(self.folder)
        logs = Path(plan.log) if plan.log else self.folder
        self.redis = Resident("redis", self.folder / "redis.log")
        self.workers = [Resident(queue, logs / f"worker-{queue}.log") for queue in plan.queues]
        self.ready = False
        self.stopped = False
        self._heard = b""

    @cached_property
    def _witness(self) -> Witness:
        """First asked for once the workers have been started: it is as long to import as they are."""
        found: Witness = import_module("celerypipe.embedded.witness").Witness(self.url)
        return found

    def run(self) -> None:
        """Work until standard input ends or a signal comes."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._stop)
        deadline = time.monotonic() + BOOT_SECONDS
        try:
            while not self.stopped and self._hear():
                self._keep_alive()
                if self.redis.up:
                    self._note_presences()
                if not self.ready:
                    self._look_for_readiness(deadline)
                end_strangers([one.process.pid for one in (self.redis, *self.workers) if one.process is not None])
        finally:
            self.close()

    def close(self) -> None:
        """Stop workers, then Redis; remove the folder."""
        for worker in self.workers:
            worker.tell(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for worker in self.workers:
            if worker.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(max(0.0, deadline - time.monotonic()))
        for resident in (*self.workers, self.redis):  # nothing in this Redis is worth saving
            resident.tell(signal.SIGKILL, group=True)
            if resident.process is not None:
                resident.process.wait()
        end_below()
        if "_witness" in vars(self):
            self._witness.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def _hear(self) -> bool:
        """Wait a moment for what the parent says, and do it; False: it left."""
        readable, _, _ = select.select([sys.stdin], [], [], LOOK if self.ready else LOOK_SOON)
        if not readable:
            return True
        said = os.read(sys.stdin.fileno(), 4096)
        *lines, self._heard = (self._heard + said).split(b"\n")
        for line in lines:
            queue = json.loads(line)["restart"]
            for worker in self.workers:
                if worker.name == queue and worker.process is not None:
                    self._send_off(worker)
        return bool(said)

    def _send_off(self, worker: Resident) -> None:
        worker.leaves = True
        self._say_that_one_comes(worker)
        worker.tell(signal.SIGTERM)

    def _say_that_one_comes(self, worker: Resident) -> None:
        """Again and again: it may be at a message for long."""
        if worker.place:
            worker.told = time.monotonic()
            self._witness.say_that_one_comes(worker.name, worker.place)

    def _keep_alive(self) -> None:
        if self.redis.died() is not None:
            say(event=f"redis-server ended; starting it again. Its log ends with:\n{self.redis.tail()}")
        if self.redis.due():
            if not self.redis.deaths:
                say(event=f"starting {self.server.name}")
            (self.folder / "redis.sock").unlink(missing_ok=True)
            self.redis.process = start_redis_server(self.server, self.folder)
        if not self.redis.up:
            self.redis.up = answers(self.folder)
            return
        for worker in self.workers:
            self._keep_worker(worker)

    def _keep_worker(self, worker: Resident) -> None:
        if worker.leaves and time.monotonic() - worker.told > TELL_EVERY:
            self._say_that_one_comes(worker)
        status = worker.died()
        if status is not None and worker.leaves and not status:
            worker.deaths, worker.not_before, worker.place = 0, 0.0, ""
        elif status is not None:
            self._say_how_it_died(worker, status)
            self._judge(worker, status)
        if worker.due():
            if not worker.leaves:
                say(
                    event=f"starting worker {worker.name}"
                    if not worker.deaths
                    else f"starting worker {worker.name} again"
                )
            worker.leaves = False
            worker.process = self._start_worker(worker)

    def _judge(self, worker: Resident, status: int) -> None:
        text = f"worker {worker.name} ended with status {status}; its log ends with:\n{worker.tail()}"
        # One whose configuration is wrong would only end again.
        if not self.ready and (status == os.EX_CONFIG or worker.deaths >= BOOT_DEATHS):
            raise ConfigError(text)
        say(event=text)

    def _start_worker(self, worker: Resident) -> subprocess.Popen[bytes]:
        # No --logfile: what a worker prints before its log is set up belongs into the same file.
        command = [sys.executable, "-m", "celerypipe", "worker", "-Q", worker.name]
        slots = self.plan.queues[worker.name]
        if slots is not None:
            command += ["-c", str(slots)]
        command += ["--exit-when-stuck"]  # it is started again
        if self.plan.imports.get(worker.name):
            command += ["-I", ",".join(self.plan.imports[worker.name])]
        environment = {**os.environ, **self.plan.environment, "CELERYPIPE_REDIS_URL": self.url, NOTHING_STAYS: "yes"}
        with worker.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # this interpreter; queue and modules are one argument each
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    def _look_for_readiness(self, deadline: float) -> None:
        missing = [worker for worker in self.workers if not worker.up]
        if self.redis.up and not missing:
            self.ready = True
            say(ready=self.url, folder=str(self.folder))
        elif time.monotonic() > deadline:
            late = missing[0] if self.redis.up else self.redis
            raise ConfigError(
                f"{late.name} was not there after {BOOT_SECONDS:.0f} s; its log ends with:\n{late.tail()}"
            )

    def _note_presences(self) -> None:
        """See which workers are there, and what they are called, for as long as one is not."""
        starting = {worker.process.pid: worker for worker in self.workers if worker.process and not worker.up}
        if not starting:
            return
        for pid, place in self._witness.present().items():
            worker = starting.get(pid)
            if worker is not None:
                worker.up, worker.place = True, place
                if not self.ready:
                    say(event=f"worker {worker.name} is ready")

    def _say_how_it_died(self, worker: Resident, status: int) -> None:
        place, worker.place = worker.place, ""
        if place:
            self._witness.say_how_it_died(worker.name, place, status)


def say(**fact: Any) -> None:
    """Tell the parent; a parent that is gone is noticed at standard input."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(fact) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Run the plan on standard input, below a guard."""
    guarded()
    plan = Plan(**json.loads(sys.stdin.readline()))
    try:
        Supervisor(plan).run()
    except (ConfigError, OSError) as error:
        say(failed=str(error))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
