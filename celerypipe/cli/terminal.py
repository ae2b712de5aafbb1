"""What strangers wrote, as a terminal may show it."""

from __future__ import annotations


def harmless(text: str) -> str:
    """Return a text without characters that steer a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)
