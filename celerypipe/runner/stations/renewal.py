"""A node that runs here, made anew of edited code between two messages."""

from __future__ import annotations

from collections.abc import Callable

from celerypipe import codec
from celerypipe.catalogue.instance import Instance, brief
from celerypipe.contract.contract import takes_snapshots
from celerypipe.errors import ConfigError
from celerypipe.message.ownership import writable

#: Warms an instance up.
Warm = Callable[[Instance], object]


def renewed(old: Instance, make: Callable[[], Instance], warm: Warm, say: Callable[[str], None]) -> Instance:
    """Let go of a node, and return the one of the edited code, warm, with its state.

    Where that does not start, the old code begins once more, and it is said; what that raises is raised.
    """
    try:
        new = make()
    except ConfigError as error:
        say(f"{error}; node {old.name} goes on with the code that it had")
        return old
    state = _state_of(old, say)
    new.follow(old)
    old.destroy()
    try:
        warm(new)
    except BaseException as error:  # noqa: BLE001  # user code, sys.exit too, must not end a run that was well before
        say(f"{brief(error)}; node {old.name} goes on with the code that it had")
        new = Instance(old.listing, new.configuration, name=old.name, folder=old.folder)
        new.follow(old)
        warm(new)
    _remember(new, state, warm, say)
    return new


def restarted(old: Instance, warm: Warm, say: Callable[[str], None]) -> Instance:
    """Let go of a node, and return a new one, warm, with its state and all that was changed. Its warm-up may raise."""
    new = Instance(old.listing, old.configuration, name=old.name, folder=old.folder)
    new.record = old.record
    new.follow(old)
    state = _state_of(old, say)
    old.destroy()
    warm(new)
    _remember(new, state, warm, say)
    return new


def _state_of(old: Instance, say: Callable[[str], None]) -> bytes | None:
    """What it remembers, as it travels, so that nothing of the old code is in it."""
    if old.node is None or not old.node.stateful:
        return None
    if not takes_snapshots(type(old.node)):
        say(f"node {old.name} forgets its state: it had no snapshot() and restore()")
        return None
    try:
        return codec.encode_value(old.node.snapshot())
    except Exception as error:  # noqa: BLE001  # user code
        say(f"node {old.name} forgets its state: snapshot() failed: {brief(error)}")
        return None


def _remember(new: Instance, state: bytes | None, warm: Warm, say: Callable[[str], None]) -> None:
    if state is None or new.node is None:
        return
    try:
        new.node.restore(writable(codec.decode_value(state)))
    except Exception as error:  # noqa: BLE001  # user code
        say(f"node {new.name} forgets its state: restore() failed: {brief(error)}")
        new.destroy()
        warm(new)
