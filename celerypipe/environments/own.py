"""What celerypipe itself needs in an environment, and how it gets there.

It is no package that an index has: what runs there is the celerypipe that runs here, by a link to its folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from celerypipe.errors import ConfigError

#: The folder of the package that runs, whichever environment it was found by.
PACKAGE = Path(__file__).parents[1].resolve()
_NAME = PACKAGE.name
_ASKED_FOR = re.compile(rf"{_NAME}\s*(?:\[([\w\s,-]*)\])?\s*(?:$|[;<>=!~@ ])", re.IGNORECASE)
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w-]+)["']""")


def needs(requirements: Iterable[str]) -> tuple[str, ...]:
    """Return requirements with what celerypipe needs in its own place, and those of its extras that they name."""
    others, extras = list[str](), set[str]()
    for line in requirements:
        if found := _ASKED_FOR.match(line):
            extras.update(each.strip().lower() for each in (found[1] or "").split(",") if each.strip())
        else:
            others.append(line)
    told = _distribution()
    if unknown := extras - {each.lower() for each in told.metadata.get_all("Provides-Extra") or ()}:
        raise ConfigError(f"celerypipe has no extra {min(unknown)!r}; take {_NAME}[{min(unknown)}] out of requirements")
    return (*others, *(line for need in told.requires or () if (line := _of_extras(need, extras))))


def install(packages: Path) -> None:
    """Make this celerypipe one of these installed packages."""
    told = _distribution()
    (packages / _NAME).symlink_to(PACKAGE, target_is_directory=True)
    folder = packages / f"{_NAME}-{told.version}.dist-info"
    folder.mkdir()
    for name, others in (("METADATA", ("METADATA", "PKG-INFO")), ("entry_points.txt", ("entry_points.txt",))):
        text = next(filter(None, map(told.read_text, others)), "")
        (folder / name).write_text(text, encoding="utf-8")


def _of_extras(need: str, extras: set[str]) -> str:
    """Return a line of its metadata, if it is always needed, or for one of these extras."""
    found = _EXTRA.search(need)
    if found is None:
        return need
    if found[1].lower() not in extras:
        return ""
    rest = re.sub(rf"\s*(?:and\s+)?{_EXTRA.pattern}\s*", " ", need).replace("()", "").strip().rstrip("; ")
    return re.sub(r"\band\s*$", "", rest).strip()


def _distribution() -> Distribution:
    try:
        return distribution(_NAME)
    except PackageNotFoundError:
        raise ConfigError(
            f"what celerypipe needs in an environment is not known: it is imported from {PACKAGE.parent} and not "
            f"installed; install it: pip install -e {PACKAGE.parent}"
        ) from None
