"""A mailbox of a run that is going on, without its runner."""

from __future__ import annotations

from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.signing import Keyring


def box_of(keyring: Keyring | None, run: str, node: str, client: Client) -> Mailbox:
    """Make it, with the reply stream and the lease of its run."""
    box = Mailbox(run, node, keyring)
    box.make(client)
    client.set(keys.USUAL.run(run), "running", px=keys.RUN_TTL)
    if not client.exists(keys.USUAL.reply(run)):
        client.xdel(keys.USUAL.reply(run), client.xadd(keys.USUAL.reply(run), {"n": ""}))
    client.pexpire(keys.USUAL.reply(run), keys.DATA_TTL)
    return box
