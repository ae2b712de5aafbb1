"""What a run that goes on is told to do: change a property of a node, suspend one, start one anew.

Whoever wants it asks the run, in a stream that its runner reads with its replies. The runner does it for nodes that run
there, and for warped ones appends it to a list, all of it from the beginning of the run: activations hear with their
leases how long that is, and who begins later does what was ordered before. Each says what came of it in a hash of its
own for each order.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from celerypipe import codec
from celerypipe.errors import CodecError, ConfigError, RunError
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, accepted
from celerypipe.redis.keys import Names
from celerypipe.redis.signing import Keyring, signed, unsigned

Kind = Literal["set", "suspend", "unsuspend", "restart", "trace"]
KINDS: tuple[Kind, ...] = ("set", "suspend", "unsuspend", "restart", "trace")

#: The field of the answers that says that no more are waited for.
ALL = "all"
#: Orders that one run takes.
MOST = 1_000
#: Milliseconds that answers are kept.
_ANSWERS_TTL = 60_000


@dataclass(frozen=True, slots=True)
class Order:
    """What one node is to do. ``property`` and ``value`` of ``set``; ``id`` tells it from all others.

    ``trace`` changes nothing: it asks the runner where messages spent their time.
    """

    kind: Kind
    node: str
    property: str = ""
    value: Any = None
    id: str = field(default_factory=lambda: secrets.token_hex(6))

    def write(self) -> bytes:
        """Return it as it travels; :class:`CodecError`: its value cannot."""
        return codec.encode_value([self.id, self.kind, self.node, self.property, self.value])

    @classmethod
    def read(cls, data: bytes) -> Order:
        """Return what :meth:`write` wrote; :class:`CodecError` if that is none."""
        found = codec.decode_value(data)
        if type(found) is not list or len(found) != 5 or found[1] not in KINDS:
            raise CodecError("no order to a run")
        made, kind, node, name, value = found
        if not all(type(each) is str for each in (made, node, name)):
            raise CodecError("no order to a run")
        return cls(kind, node, name, value, made)


class Obeyed(msgspec.Struct, frozen=True):
    """What came of an order at one instance of the node. ``where``: its process; ``error``: why not, empty if it did.

    ``late``: it has not answered so far, and does it once its ``update`` is over.
    """

    where: str
    error: str = ""
    late: bool = False


class _Summary(msgspec.Struct):
    error: str
    found: list[Obeyed]
    paths: list[Any] = []


# -- to the runner ---------------------------------------------------------------------------------------------------


def ask(client: Client, run: str, order: Order, keyring: Keyring | None) -> None:
    """Ask a run for it; what came of it is found by :func:`obeyed`."""
    said = signed(order.write(), keyring, "order", run)
    stream = client.names.asked(run)
    asking = ("XADD", stream, "MAXLEN", "~", MOST, "*", "o", said)
    accepted(client.together(asking, ("PEXPIRE", stream, keys.RUN_TTL)))


def order_in(item: Sequence[Any], run: str, keyring: Keyring | None) -> Order:
    """Read an entry of that stream; :class:`CodecError` if nobody of ours wrote it."""
    fields = item[1]
    if len(fields) != 2:
        raise CodecError("no order to a run")
    return Order.read(unsigned(fields[1], keyring, "order", run))


def wait_for(client: Client, run: str, order: Order, patience: float) -> tuple[list[Obeyed], list[Any]]:
    """Wait for what :func:`obeyed` returns; :class:`RunError`: the run ended, or does not answer."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if (found := obeyed(client, order.id)) is not None:
            return found
        if client.get(client.names.run(run)) != b"running":
            raise RunError(f"run {run} ended before it answered")
        time.sleep(0.03)
    raise RunError(f"run {run} did not answer within {patience:.0f} s; look at the terminal where it was started")


# -- to activations --------------------------------------------------------------------------------------------------


def telling(names: Names, run: str, orders: Sequence[Order], keyring: Keyring | None) -> list[Command]:
    """Return the commands that add orders to the list of a run."""
    said = [signed(order.write(), keyring, "order", run) for order in orders]
    return [("LPUSH", names.orders(run), *said), ("PEXPIRE", names.orders(run), keys.DATA_TTL)] if said else []


def told(client: Client, run: str, since: int, keyring: Keyring | None) -> list[Order | None]:
    """Return what was ordered from that place in the list on; None for what nobody of ours wrote."""
    found = client.call("LRANGE", client.names.orders(run), 0, -since - 1)  # the last one is the first
    orders: list[Order | None] = []
    for data in reversed(found):
        try:
            orders.append(Order.read(unsigned(data, keyring, "order", run)))
        except CodecError:
            orders.append(None)
    return orders


# -- back ------------------------------------------------------------------------------------------------------------


def answering(names: Names, order: str, said: Mapping[str, str]) -> list[Command]:
    """Return the commands that say what came of an order: who, and why not, if it did not."""
    key = names.answers(order)
    flat = [each for pair in said.items() for each in pair]
    return [("HSET", key, *flat), ("PEXPIRE", key, _ANSWERS_TTL)]


def answers(client: Client, order: str) -> dict[str, str]:
    """Return what was said so far."""
    found: Any = client.hgetall(client.names.answers(order))
    return {name.decode(errors="replace"): text.decode(errors="replace") for name, text in found.items()}


def summing_up(
    names: Names, order: str, found: Sequence[Obeyed], error: str = "", paths: Sequence[Any] = ()
) -> list[Command]:
    """Return the commands that say all that came of an order; ``error``: it was refused; ``paths``: of a trace."""
    said = {"error": error, "found": [msgspec.structs.asdict(each) for each in found], "paths": paths}
    return answering(names, order, {ALL: msgspec.json.encode(said).decode()})


def obeyed(client: Client, order: str) -> tuple[list[Obeyed], list[Any]] | None:
    """Return what came of an order, and the paths of a trace; None: nobody said so yet.

    :class:`ConfigError`: it was refused.
    """
    text = client.hget(client.names.answers(order), ALL)
    if text is None:
        return None
    try:
        said = msgspec.json.decode(text, type=_Summary)
    except ValueError:  # no run of ours wrote that: it may answer still
        return None
    if said.error:
        raise ConfigError(said.error)
    return said.found, said.paths


def value_too_strange(order: Order) -> ConfigError | None:
    """Return what is wrong with a value that cannot travel."""
    try:
        order.write()
    except CodecError as error:
        return ConfigError(f"the value of {order.property!r} cannot be sent: {error}")
    return None
