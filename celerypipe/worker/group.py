"""A node group: a worker of one process that holds nodes by name, made, started, asked and removed while it runs.

It is asked by tasks on a queue of its own, besides the one that it serves; what is asked lapses by Redis' clock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

import celery
import msgspec

from celerypipe import codec
from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.instance import Instance, brief, trace
from celerypipe.definition.names import GROUP
from celerypipe.errors import BadSignature, CelerypipeError, ConfigError, did_you_mean
from celerypipe.message.message import Message
from celerypipe.redis import keys
from celerypipe.redis.connection import Broken, Client, accepted, said
from celerypipe.redis.keys import Names
from celerypipe.redis.signing import Keyring, signed, unsigned
from celerypipe.worker.activation.alarm import Interrupted
from celerypipe.worker.activation.place import Worker

logger = logging.getLogger("celerypipe.worker")

#: The queue of a group begins so, and its task is called so.
QUEUE, TASK = GROUP, "celerypipe.group"
#: What can be asked.
Verb = Literal["create", "configure", "initialize", "start", "stop", "ask", "remove", "list"]
#: What a node of a group is: it has arguments; it is warm; it takes messages; it was stopped and is warm.
NodeState = Literal["configured", "initialized", "running", "stopped"]
#: From which states each verb goes on, and what to do in others.
FROM: dict[str, tuple[NodeState, ...]] = {
    "configure": ("configured", "initialized", "stopped"),
    "initialize": ("configured",),
    "start": ("initialized", "stopped"),
    "stop": ("running",),
    "ask": ("running",),
    "remove": ("configured", "initialized", "stopped"),
}
CURES: dict[NodeState, str] = {
    "configured": "initialize it first",
    "initialized": "start it first",
    "stopped": "start it first",
    "running": "stop it first",
}
#: Where nothing is left to do.
DONE = {"start": "it takes messages already", "initialize": "it is warm already; configure it to have it made anew"}


class GroupNode(msgspec.Struct, frozen=True):
    """A node of a group."""

    name: str
    mark: str
    state: NodeState
    configuration: dict[str, Any]


class Asking(msgspec.Struct, frozen=True):
    """What a group is asked for. ``until``: Redis' time in milliseconds after which it is void.

    ``message``: bytes, as hexadecimal digits; ``timeout``: seconds that ``update`` has.
    """

    id: str
    verb: Verb
    until: int
    node: str = ""
    mark: str = ""
    configuration: dict[str, Any] = {}
    message: str = ""
    timeout: float | None = None


class GroupAnswer(msgspec.Struct, frozen=True):
    """What came of it. ``error``: why nothing did; ``trace``: where, in the node; ``messages``: as bytes in digits."""

    error: str = ""
    trace: str = ""
    nodes: list[GroupNode] = []
    messages: str = ""


class _Held:
    """A node, and where it is in its life."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.state: NodeState = "configured"


class NodeGroup:
    """The nodes of this process. ``listings``: those that it may hold, by mark."""

    def __init__(self, worker: Worker, listings: dict[str, Listing]) -> None:
        self._worker, self._listings = worker, listings
        self._nodes: dict[str, _Held] = {}

    def do(self, asked: Asking) -> GroupAnswer:
        """Do what is asked; what goes wrong is in the answer."""
        try:
            messages = self._do(asked)
        except Interrupted as error:
            return GroupAnswer(f"node {asked.node!r}: {error}", "", self.listed())
        except CelerypipeError as error:
            return GroupAnswer(str(error), getattr(error, "remote_traceback", ""), self.listed())
        except Exception as error:  # noqa: BLE001  # the node's, which the one who asked gets
            return GroupAnswer(f"node {asked.node!r}: {brief(error)}", trace(error), self.listed())
        return GroupAnswer("", "", self.listed(), codec.encode_joined(messages).hex() if messages else "")

    def listed(self) -> list[GroupNode]:
        """Return the nodes."""
        return [
            GroupNode(name, held.instance.listing.mark, held.state, held.instance.configuration or {})
            for name, held in self._nodes.items()
        ]

    def _do(self, asked: Asking) -> list[Message]:
        if asked.verb == "list":
            return []
        if asked.verb == "create":
            self._create(asked)
            return []
        held = self._nodes.get(asked.node)
        if held is None:
            raise ConfigError(f"this group has no node {asked.node!r}{did_you_mean(asked.node, self._nodes)}")
        if held.state not in FROM[asked.verb]:
            cure = DONE.get(asked.verb) if held.state != "configured" else None
            cure = cure or CURES[held.state]
            raise ConfigError(f"cannot {asked.verb} node {asked.node!r}, which is {held.state}: {cure}")
        match asked.verb:
            case "configure":
                self._destroy(held)
                self._nodes[asked.node] = _Held(self._instance(asked, held.instance.listing))
            case "initialize":
                self._warm(held)
            case "start":
                held.state = "running"
            case "stop":
                held.state = "stopped"
            case "remove":
                self._destroy(self._nodes.pop(asked.node))
            case "ask":
                return self._ask(held, asked)
        return []

    def _create(self, asked: Asking) -> None:
        if asked.node in self._nodes:
            raise ConfigError(f"this group has a node {asked.node!r} already; remove it, or give this one another name")
        listing = self._listings.get(asked.mark)
        if listing is None:
            module = asked.mark.rpartition(".")[0]
            cure = f'; add imports = ["{module}"] to worker_configs/QUEUE.toml there, and restart it' if module else ""
            near = did_you_mean(asked.mark, self._listings)
            raise ConfigError(f"this worker has no node {asked.mark!r}{near}{cure}")
        held = _Held(self._instance(asked, listing))
        self._warm(held)
        self._nodes[asked.node] = held

    def _instance(self, asked: Asking, listing: Listing) -> Instance:
        if wrong := listing.complaints(asked.configuration):
            raise ConfigError(f"{listing.mark}: {'; '.join(map(str, wrong))}")
        return Instance(listing, asked.configuration, name=asked.node)

    def _warm(self, held: _Held) -> None:
        with self._worker.place().switch.patient():
            held.instance.warm()
        held.state = "initialized"

    def _ask(self, held: _Held, asked: Asking) -> list[Message]:
        (message,) = codec.decode(bytes.fromhex(asked.message))
        with self._worker.alarm() as alarm:
            return alarm.call(asked.timeout, held.instance.update, message)

    def _destroy(self, held: _Held) -> None:
        with self._worker.place().switch.patient():
            held.instance.destroy()

    def close(self) -> None:
        """Destroy all of them."""
        while self._nodes:
            self._destroy(self._nodes.popitem()[1])


class GroupTask(celery.Task):  # type: ignore[misc]  # celery ships no types
    """The task by which a group is asked; its argument is an :class:`Asking`, signed where there are keys."""

    name = TASK
    acks_late = False
    ignore_result = True
    typing = False

    def __init__(self, worker: Worker, group: NodeGroup) -> None:
        self._worker, self._group = worker, group

    def run(self, argument: Any = "", *_: Any, **__: Any) -> None:
        """Do it, unless its time is over, and answer."""
        own = next((queue for queue in self._worker.queues if queue.startswith(QUEUE)), "")
        try:
            asked = asked_in(argument, own, self._worker.keyring)
        except ConfigError as error:
            logger.error("%s", error)  # noqa: TRY400  # its place says nothing
            return
        client = self._worker.client()
        try:
            if client.now() * 1000 > asked.until:
                return
            told = self._group.do(asked)
            accepted(client.together(*answering(client.names, asked.id, told)))
        except Broken as error:
            logger.warning("what a group was asked for has no answer: %s", said(error))


def written(asked: Asking, queue: str, keyring: Keyring | None) -> str:
    """Return it as the argument of a task."""
    return signed(msgspec.json.encode(asked), keyring, "group", queue).hex()


def asked_in(argument: object, queue: str, keyring: Keyring | None) -> Asking:
    """Read it; :class:`ConfigError` says why nobody of ours wrote it."""
    try:
        data = bytes.fromhex(argument) if isinstance(argument, str) else b""
        return msgspec.json.decode(unsigned(data, keyring, "group", queue), type=Asking)
    except BadSignature:
        raise ConfigError(
            "what a node group was asked for without a signature of ours was refused: set CELERYPIPE_KEYS where it "
            "came from, as it is set here"
        ) from None
    except ValueError as error:
        raise ConfigError(f"a task for a node group that is none was refused: {error}") from None


def answering(names: Names, request: str, told: GroupAnswer) -> list[tuple[Any, ...]]:
    """Return the commands that answer."""
    key = names.answer(request)
    return [("RPUSH", key, msgspec.json.encode(told)), ("PEXPIRE", key, keys.ANSWER_TTL)]


def answer(client: Client, request: str, until: float, lives: Callable[[], None]) -> GroupAnswer | None:
    """Wait for the answer until that time of Redis; None: there is none. ``lives`` raises if nobody will give it."""
    while (left := until - client.now()) > 0:
        found = client.call("BLPOP", client.names.answer(request), f"{min(left, 1.0):.2f}")
        if found is not None:
            return msgspec.json.decode(found[1], type=GroupAnswer)
        lives()
    return None
