"""How dead letters are shown."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from celerypipe.message.message import Message, plain
from celerypipe.message.payload import Array, Audio, Image, size_bytes
from celerypipe.process.terminals import harmless
from celerypipe.runner.folder.letter import DeadLetter

#: Payloads up to so many bytes are shown whole, larger ones by their beginning or their shape.
SHOWN = 4096


def table(letters: list[DeadLetter]) -> Table:
    """Return them as a table, a line each."""
    shown = Table("letter", "node", "when", "attempts", "error", box=None, pad_edge=False, header_style="bold")
    shown.columns[0].no_wrap = True
    for column in shown.columns:
        column.overflow = "fold"
    for letter in letters:
        text = letter.text.splitlines()[0] if letter.text else letter.error
        attempts = str(letter.attempts) + (f", replayed {letter.replays}×" if letter.replays else "")
        shown.add_row(
            Text(letter.name), Text(harmless(letter.node)), _moment(letter.at), Text(attempts), Text(harmless(text))
        )
    return shown


def facts_of(letter: DeadLetter, message: Message | None, trouble: str) -> list[tuple[str, str]]:
    """Return what there is to say of one, name and value; ``trouble``: why its message cannot be read."""
    attempts = f"{letter.attempts}" + (f", and came back after {letter.replays} replays" if letter.replays else "")
    run = letter.run + (f" of {letter.pipeline}" if letter.pipeline else "")
    facts = [
        ("letter", letter.name),
        ("node", letter.node),
        ("message", letter.message_id),
        ("died", _moment(letter.at)),
        ("run", run),
        ("attempts", attempts),
        ("worker", letter.worker),
        ("error", f"{letter.error}: {letter.text}"),
        ("note", letter.note),
    ]
    if message is None:
        facts.append(("content", trouble))
    else:
        facts += [
            ("from", f"{message.creator} (number {message.sequence} of source message {message.origin})"),
            ("meta", json.dumps(plain(message.meta), ensure_ascii=False)[:SHOWN]),
            ("payload", _payload(message.payload)),
        ]
    return [(name, value) for name, value in facts if value]


def content_of(message: Message | None) -> dict[str, Any] | None:
    """Return the message as JSON values; a large payload only in words."""
    if message is None:
        return None
    if size_bytes(message.payload) <= SHOWN:
        return message.to_dict()
    return {**message.with_changes(payload=None, id=message.id).to_dict(), "payload": _payload(message.payload)}


def _payload(payload: Any) -> str:
    kind = type(payload).__name__
    size = size_bytes(payload)
    array = _array(payload)
    shape = f", shape {array.shape}, {array.dtype}" if array is not None else ""
    if size > SHOWN:
        return f"{kind} of {size} bytes{shape}"
    return f"{kind}{shape}: {json.dumps(plain(payload), ensure_ascii=False)[:SHOWN]}"


def _array(payload: Any) -> np.ndarray[Any, Any] | None:
    match payload:
        case np.ndarray():
            return payload
        case Audio():
            return payload.audio
        case Image():
            return payload.image
        case Array():
            return payload.array
    return None


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
