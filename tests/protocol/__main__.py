"""``python -m tests.protocol keep`` or ``raise``: after a change of what stands in Redis, see CONTRIBUTING.md."""

from __future__ import annotations

import re
import sys

from celerypipe.mailbox import protocol
from tests.protocol.sources import PACKAGE, STORED, described

USAGE = """python -m tests.protocol keep    the other side understands it as before, or the number was in no release yet
python -m tests.protocol raise   it does not: the number goes up by one"""


def main(words: list[str]) -> int:
    """Store the digests of the sources as they are now."""
    if words not in (["keep"], ["raise"]):
        sys.stderr.write(f"{USAGE}\n")
        return 2
    text = described()
    if words == ["raise"]:
        number = protocol.PROTOCOL + 1
        file = PACKAGE / "mailbox" / "protocol.py"
        source, count = re.subn(
            r"^PROTOCOL = \d+$", f"PROTOCOL = {number}", file.read_text("utf-8"), flags=re.MULTILINE
        )
        assert count == 1
        file.write_text(source, "utf-8")
        text = text.replace(f"protocol {protocol.PROTOCOL}\n", f"protocol {number}\n", 1)
    STORED.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
