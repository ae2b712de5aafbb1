"""The command line: ``celerypipe`` and its commands, one module each, loaded when it is called."""

from celerypipe.cli.commands import main as main
