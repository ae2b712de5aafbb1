"""``python -m tests.reference keep``: write ``docs/reference.md`` anew, after a change of what it is made from."""

from __future__ import annotations

import sys

from tests.reference.page import STORED, page

USAGE = "python -m tests.reference keep    write docs/reference.md anew"


def main(words: list[str]) -> int:
    """Store the page as the code is now."""
    if words != ["keep"]:
        sys.stderr.write(f"{USAGE}\n")
        return 2
    STORED.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
