"""What may be called how: one rule for pipelines and nodes, one for queues. Letters of every script are welcome.

A name becomes a part of keys in Redis, of the names of files and folders, of command lines and of what terminals show;
that of a queue is a key itself, and stands in ``-Q``, where commas part them.
"""

from __future__ import annotations

import re
import unicodedata

#: File systems end at 255 bytes, and something is added to most names.
LONGEST, LONGEST_BYTES = 100, 200
#: What lies in the folder of a run beside the folders of its nodes.
IN_A_FOLDER = ("config.json", "report.json", "dead_letters", "journals")
#: Keys that kombu and celerypipe have in Redis: a queue is a list of its own name there.
_KEYS = ("unacked", "unacked_index", "unacked_mutex", "celeryev")
_BEGINNINGS, _ENDING = ("_kombu.", "celeryev.", "celerypipe:", "celerypipe@"), "celery.pidbox"
#: The queue by which a worker is asked to hold nodes begins so; it has no file.
GROUP = "group."
#: Stands between a queue and the environment that its workers run in: gpu+asr.
IN = "+"
_ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)


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
    own, plus, environment = name.partition(IN)
    if plus and (not own or wrong_environment(environment)):
        return f"{name!r} is no name for a queue; {IN!r} stands between one and its environment, as in gpu{IN}asr"
    return wrong_name(name)


def with_environment(queue: str, environment: str | None) -> str:
    """Return the queue of those workers of a queue that run in an environment of its list."""
    return f"{queue}{IN}{environment}" if queue and environment else queue


def environment_of(queue: str) -> tuple[str, str]:
    """Return the queue whose file says how its workers run, and the name of their environment; empty: none."""
    own, _, environment = queue.rpartition(IN)
    return (own, environment) if own else (queue, "")


def wrong_environment(name: str) -> str:
    """Say why an environment cannot be called so, and what to do; nothing if it can."""
    if _ENVIRONMENT.fullmatch(name):
        return ""
    return (
        f"{name!r} is no name for an environment: write letters (a to z, A to Z), digits, '-', '_' and '.', at most "
        "63, the first one a letter or a digit, such as asr"
    )
