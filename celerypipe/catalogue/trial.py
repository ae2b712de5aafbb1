"""``check_node``: a node tried in a test, with the life and the encoding that it has on a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from celerypipe import codec
from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.instance import Instance, as_messages, update_batch
from celerypipe.contract.contract import Node, Sink, Source, node_class, takes_snapshots
from celerypipe.errors import CodecError, ConfigError
from celerypipe.message.message import Message


def check_node(
    node: type[Node] | Callable[..., Any], inputs: Iterable[Any] = (), /, **configuration: Any
) -> list[Message]:
    """Run a node over some inputs as a worker would, and return what comes out, in order.

    For a test of your own::

        def test_upper() -> None:
            (message,) = check_node(Upper, ["text"], suffix="!")
            assert message.payload == "TEXT!"

    ``node``: a class, or a function under ``@node``. ``inputs``: messages, or payloads; none for a
    source. ``configuration``: its arguments, as in a pipeline.

    Configuration, inputs and outputs are encoded and decoded as on their way to a worker and back, so the arrays of a
    message are read-only unless the node says ``writable``. The node is made, configured, warmed up and destroyed. One
    with ``update_batch`` gets all inputs at once. One with ``snapshot`` and ``restore`` is replaced after each message
    by another that is given what the first one remembered, as after a crash.

    Raises :class:`ConfigError` for arguments that it does not take, :class:`CodecError` for what cannot travel, and
    what the node raises.
    """
    found = node_class(node)
    if found is None:
        raise TypeError(f"check_node takes a node class or a function under @node, not {node!r}")
    listing = Listing(f"{found.__module__}.{found.__qualname__}", found, "import")
    if complaints := listing.complaints(configuration):
        raise ConfigError("\n".join(each.text for each in complaints))
    given = _messages(inputs)
    trial = _Trial(listing, codec.decode_value(codec.encode_value(configuration)))
    try:
        return trial.outputs(given)
    finally:
        trial.instance.destroy()


def _messages(inputs: Any) -> list[Message]:
    """Return inputs as messages; TypeError for one that stands there by itself, as a text, a dict or an array does."""
    if not isinstance(inputs, Iterable) or isinstance(inputs, (str, bytes, bytearray, Mapping, np.ndarray)):
        raise TypeError(
            f"inputs: one {type(inputs).__name__}; write a list of messages or payloads, such as "
            "check_node(Upper, [payload])"
        )
    return [each if isinstance(each, Message) else Message(each) for each in inputs]


class _Trial:
    def __init__(self, listing: Listing, configuration: dict[str, Any]) -> None:
        self.listing = listing
        self.configuration = configuration
        self.instance = self._warm()

    def _warm(self) -> Instance:
        instance = Instance(self.listing, self.configuration, name=self.listing.node.__name__)
        instance.warm()
        return instance

    def outputs(self, inputs: list[Message]) -> list[Message]:
        node = self.instance.node
        if isinstance(node, Source):
            if inputs:
                raise TypeError(f"{type(node).__name__} is a source: it takes no inputs")
            return [_travelled(message) for message in as_messages(node.messages(), node.name)]
        given = [_travelled(message) for message in inputs]
        if self.listing.batches and given:
            return [_travelled(message) for each in update_batch(self.instance, given) for message in _or_raise(each)]
        found = []
        for message in given:
            made = self.instance.update(message)
            found += [] if isinstance(node, Sink) else [_travelled(output) for output in made]
            if self.listing.node.stateful and takes_snapshots(self.listing.node):
                self._replace()
        return found

    def _replace(self) -> None:
        old, self.instance = self.instance, self._warm()
        assert old.node is not None  # noqa: S101  # it is warm
        assert self.instance.node is not None  # noqa: S101
        try:
            state = codec.encode_value(old.node.snapshot())
        except CodecError as error:
            raise CodecError(f"snapshot() returned what cannot travel: {error}") from None
        old.destroy()
        self.instance.node.restore(codec.decode_value(state))


def _or_raise(found: list[Message] | Exception) -> list[Message]:
    if isinstance(found, Exception):
        raise found
    return found


def _travelled(message: Message) -> Message:
    (arrived,) = codec.decode(codec.encode_joined((message,)))
    return arrived
