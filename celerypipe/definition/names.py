"""What may be called how: one rule for pipelines and nodes, one for queues. Letters of every script are welcome.

A name becomes a part of keys in Redis, of the names of files and folders, of command lines and of what terminals show;
that of a queue is a key itself, and stands in ``-Q``, where commas part them.
"""

from __future__ import annotations

import unicodedata

#: File systems end at 255 bytes, and something is added to most names.
LONGEST, LONGEST_BYTES = 100, 200
#: What lies in the folder of a run beside the folders of its nodes.
IN_A_FOLDER = ("config.json", "report.json", "dead_letters", "journals")
#: Keys that kombu and celerypipe have in Redis: a queue is a list of its own name there.
_KEYS = ("unacked", "unacked_index", "unacked_mutex", "celeryev")
_BEGINNINGS, _ENDING = ("_kombu.", "celeryev.", "celerypipe:", "celerypipe@"), "celery.pidbox"


def wrong_name(name: str) -> str:
    """Say why a pipeline or a node cannot be called so, and what to do; nothing if it can."""
    if not name:
        return "must not be empty"
    if name != name.strip():
        return f"{name!r} is no name; write one without spaces around it"
    size = len(name.encode("utf-8", "surrogatepass"))
    if len(name) > LONGEST:
        return f"is {len(name)} characters long; at most {LONGEST} are allowed"
    if size > LONGEST_BYTES:
        return f"is {size} bytes long in UTF-8; at most {LONGEST_BYTES} are allowed"
    if not name.isprintable():
        return f"{name!r} is no name; leave out control characters and others that are not seen"
    if (composed := unicodedata.normalize("NFC", name)) != name:
        return f"{name!a} has a letter in two pieces, and would be two names; write it as one: {composed!a}"
    if "/" in name or "\\" in name or ".." in name or name[0] == "." or name[-1] == ".":
        return f"{name!r} is no name for a folder; leave out slashes, '..' and a dot at either end"
    if name[0] == "-":
        return f"{name!r} would be taken for an option where it is typed; begin with another character"
    return ""


def wrong_queue(name: str) -> str:
    """Say why a queue cannot be called so, and what to do; nothing if it can."""
    if "," in name or any(map(str.isspace, name)):
        return f"{name!r} is no name for a queue; leave out commas and spaces"
    if name in _KEYS or name.startswith(_BEGINNINGS) or name.endswith(_ENDING):
        return f"{name!r} is the name of a key in Redis already; call the queue otherwise"
    return wrong_name(name)
