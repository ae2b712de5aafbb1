"""Handles of the nodes of a group: what a manager does with a node on another machine."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from celerypipe import codec
from celerypipe.celery.item import Items
from celerypipe.errors import HostError, NodeFailed
from celerypipe.message.message import Message
from celerypipe.redis.connection import Client, accepted, explained
from celerypipe.redis.signing import Keyring
from celerypipe.worker.group import QUEUE, TASK, Asking, GroupAnswer, GroupNode, NodeState, Verb, answer, written

#: Seconds that warming up, and a message, may take where nobody says how long.
PATIENCE = 60.0


class GroupClient:
    """Asks one group. ``lives`` raises :class:`HostError` if its worker is gone; ``where`` says which it is."""

    def __init__(
        self, client: Client, keyring: Keyring | None, group: str, where: str, lives: Callable[[], None]
    ) -> None:
        self._client, self._keyring, self._queue = client, keyring, f"{QUEUE}{group}"
        self._where, self._lives = where, lives
        self._items = Items()

    def ask(self, verb: Verb, *, patience: float = PATIENCE, **facts: Any) -> GroupAnswer:
        """Ask, and return the answer; :class:`HostError` says why nothing was done."""
        client = self._client
        self._lives()
        with explained(client.address):
            until = client.now() + patience
            asked = Asking(secrets.token_hex(8), verb, int(until * 1000), **facts)
            item = self._items.item(
                TASK,
                [written(asked, self._queue, self._keyring)],
                queue=self._queue,
                shown=f"({verb!r}, {asked.node!r})",
            )
            queue = client.names.queue(self._queue)
            accepted(client.together(("LPUSH", queue, item)))
            told = answer(client, asked.id, until, self._lives)
            if told is None:
                client.together(("LREM", queue, 1, item))
                raise HostError(f"{self._where}: no answer within {patience:g} s: it is busy, or {verb} takes longer")
        if told.error and told.trace:
            raise NodeFailed(told.error, node=asked.node, worker=self._where, remote_traceback=told.trace)
        if told.error:
            raise HostError(f"{self._where}: {told.error}")
        return told


class NodeHandle:
    """A node of a group. What it does goes on there; an order that makes no sense is an error that names its state."""

    def __init__(self, group: GroupClient, name: str) -> None:
        self._group = group
        self.name = name

    def __repr__(self) -> str:
        return f"node {self.name!r}"

    @property
    def state(self) -> NodeState:
        """What it is: "configured", "initialized" (warm), "running" or "stopped"."""
        return self._told().state

    @property
    def configuration(self) -> Mapping[str, Any]:
        """Its arguments."""
        return self._told().configuration

    def configure(self, **configuration: Any) -> None:
        """Give it new arguments; it has to be initialized again."""
        self._group.ask("configure", node=self.name, configuration=configuration)

    def initialize(self, *, timeout: float = PATIENCE) -> None:
        """Make it, and warm it up."""
        self._group.ask("initialize", node=self.name, patience=timeout)

    def start(self) -> None:
        """Take messages from now on."""
        self._group.ask("start", node=self.name)

    def stop(self) -> None:
        """Refuse messages from now on; it stays warm, and can be started again."""
        self._group.ask("stop", node=self.name)

    def ask(self, message: Message, *, timeout: float = PATIENCE) -> list[Message]:
        """Hand it a message, and return what comes out, as of a node that runs here.

        :class:`celerypipe.NodeFailed`: it raised; ``remote_traceback`` says where.
        """
        content = codec.encode_joined([message]).hex()
        told = self._group.ask("ask", node=self.name, message=content, timeout=timeout, patience=timeout + 2.0)
        return codec.decode(bytes.fromhex(told.messages)) if told.messages else []

    def _told(self) -> GroupNode:
        found = [each for each in self._group.ask("list").nodes if each.name == self.name]
        if not found:
            raise HostError(f"{self!r} was removed")
        return found[0]
