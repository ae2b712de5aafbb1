"""What a file of requirements asks for, and what is installed here does not give."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def unmet(requirements: Path) -> list[str]:
    """Return each such line with the reason. Options, addresses and files that it includes are for pip to judge."""
    packaging = import_module("packaging.requirements")  # long to import, and most nodes have no such file
    found = []
    for line in requirements.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            need = packaging.Requirement(line.partition(" #")[0].partition(" --")[0].strip())
        except packaging.InvalidRequirement:
            continue
        if need.url or (need.marker is not None and not need.marker.evaluate()):
            continue
        try:
            there = version(need.name)
        except PackageNotFoundError:
            found.append(f"{need.name}{need.specifier} (not installed)")
            continue
        if not need.specifier.contains(there, prereleases=True):
            found.append(f"{need.name}{need.specifier} ({there} is installed)")
    return found
