"""Tables and words as Markdown has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

#: What docstrings put around names.
_ROLE = re.compile(r":[a-z]+:`~?([^`]*)`")


def plain(text: str) -> str:
    """A docstring, or a piece of one, as Markdown: one paragraph stays one."""
    return _ROLE.sub(r"`\1`", text).replace("``", "`").replace("\n", " ").strip()


def code(value: Any) -> str:
    """A value as it stands in JSON, as code; nothing for nothing."""
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns that are empty in each row are left out."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    kept = [place for place in range(len(heading)) if any(row[place] for row in cells)]
    lines = [heading, ["---"] * len(heading), *cells]
    return "\n".join("| " + " | ".join(line[place] for place in kept) + " |" for line in lines)
