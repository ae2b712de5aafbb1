"""``passthrough_identity``: a proc that sends on what it receives."""

from __future__ import annotations

import time

from celerypipe.contract.contract import Proc
from celerypipe.message.message import Message
from celerypipe.nodes.parts.arguments import number


class PassthroughIdentity(Proc):
    """Sends the same message on, after a delay.

    ``delay``: seconds that each message is held, to try out timeouts and windows
    """

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = number("delay", delay)

    def update(self, message: Message) -> Message:
        """Wait, then return the message itself."""
        if self.delay:
            time.sleep(self.delay)
        return message
