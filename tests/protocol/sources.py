"""A digest of each source that says what stands in Redis, which changes with what it does and not with its words.

Docstrings, comments, imports, what is logged and what errors say are no part of it; nor is the version of Python.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from celerypipe.mailbox.protocol import PROTOCOL
from tests.servers import ROOT

PACKAGE = ROOT / "celerypipe"
#: The digests of the protocol that is spoken, after a line with its number.
STORED = Path(__file__).with_name("digests.txt")
#: Modules of ``mailbox/`` that only read what others say there, for people; and the number, which is told apart.
OTHERS = {"__init__", "cancellation", "protocol", "status"}
#: Fields of a syntax tree that say nothing, or are not there in each Python.
_UNSAID = {"ctx", "kind", "type_comment", "type_params", "type_ignores"}
_LUA_COMMENT = re.compile(r"\s*--[^\n]*")


def sources() -> list[Path]:
    """The modules that say what stands in Redis."""
    mailbox = [file for file in sorted((PACKAGE / "mailbox").rglob("*.py")) if file.stem not in OTHERS]
    return [*mailbox, PACKAGE / "redis" / "keys.py", PACKAGE / "redis" / "signing.py"]


def digest_of(source: str) -> str:
    """Return the digest of what a module does."""
    return hashlib.blake2b("\n".join(_said(ast.parse(source))).encode(), digest_size=8).hexdigest()


def described() -> str:
    """Return the number of the protocol, and the digest of each of its sources, a line each."""
    lines = [f"{file.relative_to(PACKAGE).as_posix()} {digest_of(file.read_text('utf-8'))}" for file in sources()]
    return "\n".join([f"protocol {PROTOCOL}", *lines, ""])


def _said(node: object) -> Iterator[str]:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            return
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="logger")))):
            return
        case ast.Raise(exc=ast.Call(func=error)):
            yield "raise"
            yield from _said(error)
        case ast.Constant(value=str(text)) if "redis.call" in text:
            yield from (line.strip() for line in _LUA_COMMENT.sub("", text).splitlines() if line.strip())
        case ast.AST():
            yield type(node).__name__
            for name, value in ast.iter_fields(node):
                if name not in _UNSAID and value not in (None, []):
                    yield name
                    yield from _said(value)
        case list():
            for each in node:
                yield from _said(each)
            yield "end"
        case _:
            yield repr(node)
