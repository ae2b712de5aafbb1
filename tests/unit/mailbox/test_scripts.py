"""Who asks for the scripts of the protocol: the mailbox alone, so that keys and arguments are laid out in one place."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[3] / "celerypipe"
SCRIPTS = "celerypipe.mailbox.scripts"


def _imports(tree: ast.Module) -> set[str]:
    """Every module and every name of one that is imported, at any depth."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_mailbox_alone_imports_the_scripts() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 200
    importing = [file for file in files if SCRIPTS in _imports(ast.parse(file.read_text(encoding="utf-8")))]
    assert [file.relative_to(PACKAGE).as_posix() for file in importing] == ["mailbox/mailbox.py"]
