"""Delivery to a server elsewhere: which addresses are good, and how often to try before giving up."""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from celerypipe.redis.secret import hidden, hidden_in

#: The longest that a server's own ``Retry-After`` is obeyed, in seconds.
LONGEST_WAIT = 30.0


class BusyError(Exception):
    """The server is there but cannot take the message now; ``wait``: the seconds it asks for."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


def address(endpoint: str, schemes: tuple[str, ...]) -> str:
    """Return the endpoint; ValueError unless it is a URL with one of the schemes and a host."""
    try:
        parts = urlsplit(endpoint)
        is_there = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        good = parts.scheme in schemes and is_there and "#" not in endpoint
    except (ValueError, AttributeError, TypeError):
        good = False
    if not good:
        raise ValueError(
            f"endpoint: {hidden(str(endpoint))!r} is no address; write something like {schemes[0]}://127.0.0.1:8080"
        )
    return endpoint


def shown(endpoint: str) -> str:
    """Return the endpoint as an error may show it: no user, no password, no query."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_here(endpoint: str) -> bool:
    """Say whether the endpoint is this machine: no proxy of the environment can reach that."""
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def deliver(
    send: Callable[[], None],
    *,
    endpoint: str,
    retries: int,
    backoff: float,
    passing: tuple[type[Exception], ...],
) -> None:
    """Call ``send`` until it succeeds, at most ``1 + retries`` times.

    ``passing``: the exceptions that another try may cure. ``backoff``: seconds before the second try, doubled each
    time, with jitter. :class:`ConnectionError` when all tries failed; any other exception of ``send`` passes through.
    """
    for attempt in range(retries + 1):
        try:
            return send()
        except passing as error:
            if attempt == retries:
                tries = "1 try" if attempt == 0 else f"{attempt + 1} tries"
                said = hidden_in(str(error))  # it may quote a proxy, with its password
                raise ConnectionError(
                    f"{shown(endpoint)} did not take the message in {tries}: {said or type(error).__name__}; "
                    f"start the server there, change 'endpoint', or give it longer with 'retries' and 'backoff'"
                ) from (error if said == str(error) else None)
            jitter = random.uniform(0.5, 1.5)  # noqa: S311  # spreads retries, keeps no secret
            asked = error.wait if isinstance(error, BusyError) else 0.0
            time.sleep(max(backoff * 2**attempt * jitter, min(asked, LONGEST_WAIT)))
    return None
