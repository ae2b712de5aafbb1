"""The command ``celerypipe dead``, and how a letter is shown."""

from celerypipe.cli.dead.dead import dead as dead
