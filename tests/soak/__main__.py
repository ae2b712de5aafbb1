"""``python -m tests.soak``: random pipelines run for hours while workers, Redis and runners are killed at random.

Every round has to end, with every message accounted for once. Exit status 1: one did not; its seed is said. Ctrl-C
ends the soak after it has put everything away.
"""

from __future__ import annotations

import json
import logging
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from celerypipe import Runner
from tests.soak.harms import HARMS
from tests.soak.rounds import Round, complaint, random_pipeline, run
from tests.soak.world import QUEUE, World

#: Seconds after which a round that is not over hangs.
HANGS = 180.0


class Breaker(threading.Thread):
    """Does harm every now and then while a round goes on; ``failed``: a harm could not be done, which ends the soak."""

    def __init__(self, world: World, dice: random.Random) -> None:
        super().__init__(daemon=True)
        self.done: list[tuple[float, str]] = []
        self.failed: BaseException | None = None
        self._world = world
        self._dice = dice
        self._over = threading.Event()
        self._began = time.monotonic()

    def run(self) -> None:
        """Break things until told to stop."""
        try:
            self._break()
        except BaseException as error:  # noqa: BLE001  # raised again where the round ends
            self.failed = error

    def _break(self) -> None:
        while not self._over.wait(self._dice.uniform(0.3, 4.0)):
            (harm,) = self._dice.choices(list(HARMS), weights=list(HARMS.values()))
            self.done.append((round(time.monotonic() - self._began, 2), harm.__name__))
            harm(self._world, self._dice)

    def stop(self) -> None:
        """Break nothing any more; raises what kept it from breaking something."""
        self._over.set()
        if self.is_alive():
            self.join()
        if self.failed is not None:
            raise self.failed


def run_round(world: World, seed: str, folder: Path) -> tuple[str, Round | None, Breaker, dict[str, object]]:
    """Run one round; return what is wrong with it (empty: nothing), the round, what broke, and what was run."""
    dice = random.Random(seed)  # noqa: S311  # the same round for the same seed, as far as time allows
    count, size = dice.choice([200, 1000, 3000]), dice.choice([1, 1, 100_000])
    count = count if size == 1 else min(count, 400)
    pipeline = random_pipeline(dice, QUEUE, count)
    expected = run(Runner(local=True), pipeline, folder / "here", count, size)
    about = {"seed": seed, "count": count, "size": size, "pipeline": pipeline.to_dict()}
    runner = Runner(dice.choice([world.redis.url, world.proxy.url]))
    breaker = Breaker(world, dice)
    timer = threading.Timer(HANGS, runner.cancel)
    timer.start()
    try:
        found = run(runner, pipeline, folder / "there", count, size, began=breaker.start)
        text = complaint(expected, found)
    except Exception as error:  # noqa: BLE001  # no run may end with an error, whatever it is
        found, text = None, f"{type(error).__name__}: {error}"
    finally:
        hung = not timer.is_alive()
        timer.cancel()
        breaker.stop()
    false, world.witness.false = world.witness.false, []
    text = text or "; ".join(false) or world.strangers() or world.orphans()
    return (f"it did not end within {HANGS:.0f} s" if hung else text), found, breaker, about


@click.command()
@click.option("--seconds", default=3600.0, show_default=True, help="How long; the last round is brought to its end.")
@click.option("--seed", default="", help="Begin with this one.  [default: a new one]")
def main(seconds: float, seed: str) -> None:
    """Run random pipelines while things break; say what did not hold."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.getLogger("celerypipe").setLevel(logging.ERROR)  # what nodes refuse is part of every round
    console = Console()
    seed = seed or f"{random.SystemRandom().getrandbits(32):08x}"
    broken: Counter[str] = Counter()
    rounds = messages = 0
    lost: Counter[str] = Counter()
    problems: list[dict[str, object]] = []
    start = time.monotonic()
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
    with tempfile.TemporaryDirectory(prefix="celerypipe-soak-") as name, Progress(*columns, console=console) as bar:
        shown, folder = bar.add_task(f"seed {seed}", total=seconds), Path(name)
        world = World(folder)
        try:
            world.open()
            while (spent := time.monotonic() - start) < seconds:
                bar.update(shown, completed=spent, description=f"{rounds} rounds, {broken.total()} faults")
                text, found, breaker, about = run_round(world, f"{seed}-{rounds}", folder / str(rounds))
                broken.update(name for _, name in breaker.done)
                rounds += 1
                if found is not None:
                    messages += found.found.total()
                    lost.update(found.kinds)
                if text:
                    problems.append({"problem": text, "broken": breaker.done, **about})
                    console.print(f"[red]{about['seed']}: {text}")
            bar.update(shown, completed=seconds)
        except KeyboardInterrupt:
            console.print("stopped")
        finally:
            world.close()
    left = world.left()
    _summary(console, rounds, messages, lost, broken)
    console.print(f"counted as deaths, by how they ended: {dict(world.witness.counted)}")
    if left:
        problems.append({"problem": f"processes are left: {left}"})
        console.print(f"[red]processes are left: {left}")
    if problems:
        path = Path(tempfile.gettempdir()) / f"celerypipe-soak-{seed}.json"
        path.write_text(json.dumps(problems, indent=1))
        console.print(f"[red]{len(problems)} problems; everything about them: {path}")
        sys.exit(1)


def _summary(console: Console, rounds: int, messages: int, lost: Counter[str], broken: Counter[str]) -> None:
    given_up = ", ".join(f"{count} {kind}" for kind, count in lost.items()) or "none"
    table = Table(title=f"{rounds} rounds, {messages} messages out; given up for no fault of their own: {given_up}")
    table.add_column("what broke")
    table.add_column("times", justify="right")
    for name, times in broken.most_common():
        table.add_row(name.replace("_", " "), str(times))
    console.print(table)


if __name__ == "__main__":
    main()
