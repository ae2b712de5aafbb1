"""``label``: a proc that writes a label on every message."""

from __future__ import annotations

from celerypipe import Message, Proc


class Label(Proc):
    """Adds one entry to the ``meta`` of each message; the payload stays as it is.

    ``key``: the entry's name
    ``text``: its value
    """

    def __init__(self, key: str = "label", text: str = "") -> None:
        self.key = key
        self.text = text

    def update(self, message: Message) -> Message:
        """Return the labelled copy."""
        return message.with_meta(**{self.key: self.text})
