"""Where Redis is and who we are there, as plain values: for a process that has no redis-py."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from celerypipe.redis.address import Address


def endpoint(address: Address) -> dict[str, Any]:
    """Return what an address says; its namespace is no part of that.

    ``auth``: what AUTH is given, nothing where nobody says who we are; ``database``. Then ``path`` of a socket; or
    ``host`` and ``port``, and ``tls``, None for a plain line; or ``sentinels``, ``sentinel_auth`` and ``master``.
    """
    at: dict[str, Any] = {"auth": _auth(address.user, address.password), "database": address.database}
    if (known := address.sentinels) is not None:
        auth = _auth(known.user, known.password)
        return {**at, "sentinels": list(known.places), "sentinel_auth": auth, "master": known.master.encode()}
    if address.path:
        return {**at, "path": address.path}
    tls = asdict(address.tls) if address.tls is not None else None
    host = address.host if address.host.isascii() else address.host.encode("idna").decode()
    return {**at, "host": host, "port": address.port, "tls": tls}


def _auth(user: str | None, password: str | None) -> list[bytes]:
    """As redis-py says it: a user without a password has an empty one."""
    if user is None:
        return [] if password is None else [password.encode()]
    return [user.encode(), (password or "").encode()]
