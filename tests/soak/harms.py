"""What breaks in a soak, at random: one function each. A visible list says how often which of them is chosen."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

import redis

from tests.servers.processes import children_of, monitors_of
from tests.servers.proxy import close, forget, reset
from tests.soak.world import World

Harm = Callable[[World, random.Random], None]


def kill_a_child(world: World, dice: random.Random) -> None:
    """``kill -9`` of one process below a worker: of its pool, or one that a node started."""
    if children := [pid for worker in world.workers for pid in world.everything(worker)[1:]]:
        _send(signal.SIGKILL, dice.choice(children))


def kill_a_worker(world: World, dice: random.Random) -> None:
    """``kill -9`` of a worker."""
    _send(signal.SIGKILL, dice.choice(world.workers).process.pid)


def kill_a_machine(world: World, dice: random.Random) -> None:
    """``kill -9`` of a worker with all its processes, also of what tells that it died."""
    _send(signal.SIGKILL, *world.everything(dice.choice(world.workers)))


def kill_a_monitor(world: World, dice: random.Random) -> None:
    """The process that tells of a worker's life is killed."""
    worker = dice.choice(world.workers)
    if worker is not world.workers[0]:  # while one of its nodes holds the interpreter lock, nobody starts another
        world.stopped.add(worker.process.pid)
    _send(signal.SIGKILL, *monitors_of(worker.process.pid))


def tell_a_worker(world: World, dice: random.Random) -> None:
    """It is told to end, or to start anew, and hands over what it has."""
    number = dice.choice([signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
    pid = dice.choice(world.workers).process.pid
    if number == signal.SIGHUP:  # it has its number again, and may have found no Redis to say farewell to
        world.stopped.add(pid)
    _send(number, pid)


def tell_a_child(world: World, dice: random.Random) -> None:
    """SIGTERM of one process of a pool."""
    (prefork,) = (worker.process.pid for worker in world.workers[:1])
    if children := sorted(children_of(prefork) - set(monitors_of(prefork))):
        _send(signal.SIGTERM, dice.choice(children))


def freeze_a_worker(world: World, dice: random.Random) -> None:
    """A worker with all that is below it stands still, for longer than others wait, and goes on as if nothing was."""
    _freeze(world, dice, *world.everything(dice.choice(world.workers)))


def freeze_a_process(world: World, dice: random.Random) -> None:
    """The same of one process: a worker's own, one of its pool, what tells that they live, or one of a node."""
    below = world.everything(dice.choice(world.workers))
    pid = dice.choice(below)
    if pid in monitors_of(below[0]):
        world.stopped.update(below)  # nobody tells that they live
    _freeze(world, dice, pid)


def _freeze(world: World, dice: random.Random, *pids: int) -> None:
    world.stopped.update(pids)
    _send(signal.SIGSTOP, *pids)
    threading.Event().wait(dice.uniform(0.5, 6.0))
    _send(signal.SIGCONT, *pids)


def _send(number: signal.Signals, *pids: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def empty_redis(world: World, _: random.Random) -> None:
    """FLUSHALL."""
    world.redis.flush()


def kill_redis(world: World, _: random.Random) -> None:
    """``kill -9`` of Redis; whoever looks after it starts it again, empty."""
    world.kill_redis()


def freeze_redis(world: World, dice: random.Random) -> None:
    """SIGSTOP, and on."""
    world.redis.freeze(dice.uniform(0.2, 5.0))


def pause_redis(world: World, dice: random.Random) -> None:
    """CLIENT PAUSE: it takes connections and answers nobody."""
    with redis.Redis.from_url(world.redis.url) as client:
        client.client_pause(dice.randint(200, 4000))


def cut_connections(world: World, _: random.Random) -> None:
    """Every connection to Redis breaks off."""
    with redis.Redis.from_url(world.redis.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)


def forget_scripts(world: World, _: random.Random) -> None:
    """Redis does not know our scripts any more."""
    with redis.Redis.from_url(world.redis.url) as client:
        client.script_flush()


def close_idle_lines(world: World, dice: random.Random) -> None:
    """``timeout``: for a while Redis closes every line that nobody uses for a second."""
    with redis.Redis.from_url(world.redis.url) as client:
        client.config_set("timeout", 1)
    threading.Event().wait(dice.uniform(2.0, 8.0))
    with redis.Redis.from_url(world.redis.url) as client:
        client.config_set("timeout", 0)


def end_lines(world: World, dice: random.Random) -> None:
    """All lines through the proxy are closed, reset or forgotten, and so will those be that nobody uses for long."""
    world.proxy.ending = dice.choice([close, reset, forget])
    world.proxy.end(world.proxy.ending)


def kill_a_runner(world: World, dice: random.Random) -> None:
    """Another run on the same queue loses its runner."""
    runner = world.stand_by()
    threading.Event().wait(dice.uniform(1.0, 3.0))
    runner.kill()
    runner.wait()
    world.bystanders.remove(runner)


#: What breaks, and how often.
HARMS: dict[Harm, int] = {
    kill_a_child: 6,
    kill_a_worker: 2,
    kill_a_machine: 1,
    kill_a_monitor: 2,
    tell_a_worker: 4,
    tell_a_child: 3,
    freeze_a_worker: 2,
    freeze_a_process: 3,
    empty_redis: 2,
    kill_redis: 1,
    freeze_redis: 2,
    pause_redis: 1,
    cut_connections: 2,
    close_idle_lines: 2,
    end_lines: 3,
    forget_scripts: 1,
    kill_a_runner: 1,
}
