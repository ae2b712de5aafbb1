"""A juturna node that sends on what it receives; laid out as juturna looks for plugins."""

from juturna.components import Message, Node


class Noop(Node):
    """The passthrough that a juturna server runs in its own process."""

    def update(self, message: Message) -> None:
        """Send it on."""
        self.transmit(message)
