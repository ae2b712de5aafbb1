"""What a project and a node of it may be called."""

from __future__ import annotations

import re

from celerypipe.definition.names import LONGEST

#: What pip, Python, systemd and Docker all take.
NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")


def wrong_letters(name: str, example: str) -> str:
    """Say what is wrong with the letters of a name, and what to write; nothing if they are right."""
    if not NAME.fullmatch(name):
        return (
            f"{name!r} is no name here; write letters from a to z, digits, '-' and '_', with a letter first and a "
            f"letter or digit last, as in {example!r}"
        )
    return f"the name is {len(name)} characters long; write at most {LONGEST}" if len(name) > LONGEST else ""
