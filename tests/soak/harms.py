"""What breaks in a soak, at random: one function each. A visible list says how often which of them is chosen."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis

from tests.servers.processes import descendants, monitors_of
from tests.soak.world import World

Harm = Callable[[World, random.Random, Path], None]


def kill_a_child(world: World, dice: random.Random, _: Path) -> None:
    """``kill -9`` of one process of a pool."""
    if children := sorted(set().union(*(descendants(worker.process.pid) for worker in world.workers))):
        with suppress(ProcessLookupError):
            os.kill(dice.choice(children), signal.SIGKILL)


def kill_a_worker(world: World, dice: random.Random, _: Path) -> None:
    """``kill -9`` of a worker with all its processes."""
    with suppress(ProcessLookupError):
        os.killpg(dice.choice(world.workers).process.pid, signal.SIGKILL)


def kill_a_monitor(world: World, dice: random.Random, _: Path) -> None:
    """The process that tells of a worker's life is killed."""
    if monitors := [pid for worker in world.workers for pid in monitors_of(worker.process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(dice.choice(monitors), signal.SIGKILL)


def stop_a_worker(world: World, dice: random.Random, _: Path) -> None:
    """SIGTERM: it hands over what it has."""
    dice.choice(world.workers).process.terminate()


def freeze_a_worker(world: World, dice: random.Random, _: Path) -> None:
    """A worker stands still for longer than its leases, and goes on as if nothing had been."""
    pid = dice.choice(world.workers).process.pid
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGSTOP)
        threading.Event().wait(dice.uniform(0.5, 6.0))
        os.killpg(pid, signal.SIGCONT)


def empty_redis(world: World, _: random.Random, __: Path) -> None:
    """FLUSHALL."""
    world.redis.flush()


def kill_redis(world: World, _: random.Random, __: Path) -> None:
    """``kill -9`` of Redis; whoever looks after it starts it again, empty."""
    world.kill_redis()


def freeze_redis(world: World, dice: random.Random, _: Path) -> None:
    """SIGSTOP, and on."""
    world.redis.freeze(dice.uniform(0.2, 5.0))


def pause_redis(world: World, dice: random.Random, _: Path) -> None:
    """CLIENT PAUSE: it takes connections and answers nobody."""
    with redis.Redis.from_url(world.redis.url) as client:
        client.client_pause(dice.randint(200, 4000))


def cut_connections(world: World, _: random.Random, __: Path) -> None:
    """Every connection to Redis breaks off."""
    with redis.Redis.from_url(world.redis.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)


def forget_scripts(world: World, _: random.Random, __: Path) -> None:
    """Redis does not know our scripts any more."""
    with redis.Redis.from_url(world.redis.url) as client:
        client.script_flush()


def kill_a_runner(world: World, dice: random.Random, folder: Path) -> None:
    """Another run on the same queue loses its runner."""
    runner = world.stand_by(folder)
    threading.Event().wait(dice.uniform(1.0, 3.0))
    runner.kill()
    runner.wait()
    world.bystanders.remove(runner)


#: What breaks, and how often.
HARMS: dict[Harm, int] = {
    kill_a_child: 6,
    kill_a_worker: 2,
    kill_a_monitor: 2,
    stop_a_worker: 2,
    freeze_a_worker: 2,
    empty_redis: 2,
    kill_redis: 1,
    freeze_redis: 2,
    pause_redis: 1,
    cut_connections: 2,
    forget_scripts: 1,
    kill_a_runner: 1,
}
