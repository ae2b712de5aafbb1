"""The command line's door: light, and clear about what went wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import celerypipe
from tests.servers import ROOT
from tests.servers.command import celerypipe as run_command
from tests.servers.extent import LONG


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, check=False)


def loaded_by(program: str) -> set[str]:
    done = python("-c", f"{program}\nimport sys\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_celerypipe_loads_neither_celery_nor_anything_heavy() -> None:
    heavy = {"celery", "kombu", "redis", "numpy", "pydantic", "rich", "click"}
    assert not heavy & loaded_by("import celerypipe")


def test_the_help_loads_no_command() -> None:
    help_of = (
        "import contextlib, io\n"
        "from celerypipe.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['--help'])"
    )
    assert not {"celery", "redis", "numpy", "pydantic", "celerypipe.cli.machines.worker"} & loaded_by(help_of)


@pytest.mark.parametrize(
    ("program", "without"),
    [
        (
            "import celerypipe.cli.machines.started, celerypipe.worker.boot\n"
            "from celerypipe.worker.served import Served\nServed((), ()).load({})",
            "celery.bin.celery celerypipe.runner click_repl flower httpx PIL.Image prompt_toolkit pydantic pygments "
            "rich websockets.sync.client websockets.sync.server yaml",
        ),
        ("import celerypipe.cli.check", "celery.app celerypipe.runner.runner kombu rich"),
        ("from celerypipe import Embedded, Runner", "celery.app celerypipe.celery kombu"),
        ("import celerypipe.embedded.supervisor", "celerypipe.mailbox celerypipe.settings msgspec redis"),
    ],
    ids=["worker", "check", "runner", "supervisor"],
)
def test_a_process_loads_nothing_that_it_does_without(program: str, without: str) -> None:
    assert not set(without.split()) & loaded_by(program)


def test_the_help_lists_every_command() -> None:
    done = python("-m", "celerypipe", "--help")
    assert done.returncode == 0
    for command in ("run", "check", "graph", "status", "health", "cancel", "worker", "nodes", "schema"):
        assert f"  {command} " in done.stdout


def test_the_version_is_told() -> None:
    assert celerypipe.__version__ in python("-m", "celerypipe", "--version").stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here: a full disk cannot be shown")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_cannot_be_written_is_one_line(unbuffered: str) -> None:
    """Nor is what is left in a buffer written once more, which would end Python with 120."""
    command = [sys.executable, "-m", "celerypipe", "--version"]
    around = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=around, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == (
        "celerypipe: standard output cannot be written: No space left on device; make room, or send it elsewhere\n"
    )


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    done = python("-m", "celerypipe", "rum", "pipeline.json")
    assert done.returncode == 2
    assert "no such command 'rum'; did you mean 'run'?" in done.stderr


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("ConfigError", 2),
        ("NoWorker", 69),
        *([("RedisUnavailable", 69), ("RunError", 1), ("NodeFailed", 1)] if LONG else []),
    ],
)
def test_our_errors_are_text_and_an_exit_code(error: str, status: int) -> None:
    program = (
        "import click\n"
        "from celerypipe import errors\n"
        "from celerypipe.cli import commands\n"
        f"def broken(): raise errors.{error}('the place: the cure')\n"
        "commands.LazyGroup.get_command = lambda *_: click.Command('run', callback=broken)\n"
        "commands.main(ARGUMENTS, prog_name='celerypipe')\n"
    )
    done = python("-c", program.replace("ARGUMENTS", "['run']"))
    assert done.returncode == status
    kind = "" if error in ("ConfigError", "RedisUnavailable") else f"{error}: "
    assert done.stderr == f"celerypipe: {kind}the place: the cure\n"
    with_traceback = python("-c", program.replace("ARGUMENTS", "['--debug', 'run']"))
    assert "Traceback" in with_traceback.stderr
    assert with_traceback.returncode == 1


def test_the_worker_command_is_the_worker_of_celery(tmp_path: Path) -> None:
    done = run_command("worker", "--help")
    assert done.returncode == 0
    assert "--concurrency" in done.stdout
    done = run_command("worker", "-l", "INFO")
    assert done.returncode == 78
    assert "add -Q QUEUE (known here: cpu, gpu, io)" in done.stderr
