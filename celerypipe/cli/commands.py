"""The table of commands, and the group that loads the module of one when it is called."""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import signal
import sys
from typing import Any

import click

import celerypipe
from celerypipe.cli.endings import MEANINGS, WRONG_BEFORE_RUNNING, Ending, ending_of
from celerypipe.cli.screen.terminal import heard, lead_nowhere, write
from celerypipe.errors import CelerypipeError, ConfigError, NodeError, did_you_mean
from celerypipe.process import collector
from celerypipe.redis.secret import hidden_in

#: Command → what it does; the module of that name in this folder, or the one below, holds the function of that name.
#: The text is here so that ``celerypipe --help`` loads none of them.
COMMANDS = {
    "new": "Make a project that runs: pipeline, nodes, tests.",
    "stub": "Write a new node, and its test.",
    "run": "Run a pipeline.",
    "check": "Check a pipeline without running it.",
    "graph": "Draw a pipeline: mermaid, dot or text.",
    "status": "Show runs, queues, nodes and workers.",
    "health": "Exit with 0 if a worker is alive.",
    "metrics": "Print or serve metrics for Prometheus, and JSON for KEDA.",
    "trace": "Show where a message spent its time.",
    "replay-hop": "Run one node once, on what it got in a recorded run.",
    "logs": "Show what nodes log and print on workers.",
    "cancel": "Stop a run, from any machine.",
    "set": "Change a property of a node while its run goes on.",
    "suspend": "Let a node hand on its messages unchanged.",
    "unsuspend": "Let a suspended node work again.",
    "restart": "Make a node anew while its run goes on.",
    "worker": "Start a worker here, or start, stop and list those of hosts.",
    "remotize": "Start a worker that serves exactly one node, warm from the start.",
    "host": "Stay up on a machine, and start workers there for others.",
    "hosts": "Show the machines on which `celerypipe host` runs, and why one is gone.",
    "environments": "List, build and remove the environments that workers here run in.",
    "dead": "List, show, replay or remove dead letters.",
    "cache": "List, explain, fill or delete cached results.",
    "nodes": "List the available nodes with their arguments.",
    "schema": "Print the JSON Schema of a pipeline, for editors.",
}

#: Where the commands are that share a module, or stand in a folder of their own.
MODULES = {
    **dict.fromkeys(("set", "suspend", "unsuspend", "restart"), "orders"),
    "trace": "debug",
    "replay-hop": "debug",
    "worker": "machines.worker",
    "remotize": "machines.remotize",
    "host": "machines.host",
    "hosts": "machines.hosts",
    "environments": "machines.environments",
}

#: What is said of a full disk, and of a terminal that is gone, where somebody writes to it.
UNWRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; that its output cannot be written is text and an exit code, too."""
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.errno not in UNWRITTEN or error.filename is not None:  # a file that has a name
                raise
            lead_nowhere(sys.stdout)
            text = f"standard output cannot be written: {error.strerror}; make room, or send it elsewhere"
            write(logging.ERROR, text, f"celerypipe: {text}")
            sys.exit(Ending.FAILED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module and return its command."""
        if cmd_name not in COMMANDS:
            return None
        with collector.aside():
            module = importlib.import_module(f"celerypipe.cli.{MODULES.get(cmd_name, cmd_name)}")
            command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)  # noqa: S101  # a promise of our own modules
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with the nearest."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"no such command {args[0]!r}{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        with formatter.section("Exit status"):
            formatter.write_dl([(str(int(ending)), meaning) for ending, meaning in MEANINGS.items()])
        variables = importlib.import_module("celerypipe.settings").VARIABLES  # no other command needs them
        with formatter.section("Environment variables"):
            formatter.write_dl([(each.name, each.meaning) for each in variables])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; our own errors become text on standard error and an exit code."""
        try:
            if callable(ctx.obj):  # who started us heard Ctrl-C until now
                ctx.obj()
            return super().invoke(ctx)
        except click.UsageError as error:  # it quotes what was typed, and that may be an address out of its place
            raise click.UsageError(hidden_in(error.format_message()), error.ctx) from None
        except CelerypipeError as error:
            if ctx.params.get("debug"):
                raise
            kind = "" if isinstance(error, WRONG_BEFORE_RUNNING) else f"{type(error).__name__}: "
            place, fields = "", {}
            if isinstance(error, NodeError):
                place = f"\n  {error.place}" if error.place else ""
                fields = {"node": error.node, "message_id": error.message_id, "exc_text": error.remote_traceback}
            write(logging.ERROR, f"{kind}{error}", f"{ctx.command_path}: {kind}{error}{place}", **fields)
            sys.exit(ending_of(error))
        except KeyboardInterrupt:  # before a run begins, and after it
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # once more, and the interpreter would not end in good order
            write(logging.ERROR, "stopped by Ctrl-C", f"{ctx.command_path}: stopped by Ctrl-C")
            sys.exit(Ending.INTERRUPTED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(celerypipe.__version__, prog_name="celerypipe")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Run the heavy stages of a Python pipeline on other machines."""
    heard()
    # Names and texts may have letters that this terminal, or the encoding of a pipe, does not.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the current folder is not there any more; cd to one that is") from None
    # The installed script does not look in the current folder, where a project's tasks/ is; `python -m` does.
    if here not in sys.path:
        sys.path.insert(0, here)
