"""Where Redis is and who we are there, as plain values: for a process that has no redis-py."""

from __future__ import annotations

from typing import Any

from celerypipe.redis.connection import connect
from celerypipe.redis.namespace import parted
from celerypipe.redis.sentinel import SCHEME, Sentinels

#: What :mod:`celerypipe.heartbeat.monitor` does for an encrypted connection, by what redis-py calls it.
TLS = {
    "cert_reqs": "required",
    "check_hostname": True,
    "ca_certs": None,
    "ca_path": None,
    "ca_data": None,
    "certfile": None,
    "keyfile": None,
    "password": None,
    "min_version": None,
    "ciphers": None,
}


def endpoint(url: str) -> dict[str, Any]:
    """Return what an address says, as redis-py reads it; its namespace is no part of that.

    ``auth``: what AUTH is given, nothing without a password; ``database``. Then ``path`` of a socket; or ``host`` and
    ``port``, and ``tls``, None for a plain line; or ``sentinels``, ``sentinel_auth`` and ``master``.
    """
    url = parted(url)[0]
    if url.startswith(f"{SCHEME}://"):
        known = Sentinels.parse(url)
        own = dict(known.options)
        return {
            "sentinels": list(known.addresses),
            "sentinel_auth": _auth(own.get("sentinel_username"), own.get("sentinel_password")),
            "master": known.master.encode(),
            "auth": _auth(*known.user),
            "database": known.database,
        }
    with connect(url) as client:
        pool = client.connection_pool
        options = pool.connection_kwargs
        # A connection knows what stands for what nobody said.
        made = pool.connection_class(**options)
    at: dict[str, Any] = {
        "auth": _auth(options.get("username"), options.get("password")),
        "database": int(options.get("db") or 0),
    }
    if url.startswith("unix://"):
        return {**at, "path": str(made.path)}
    tls = {name: options.get(f"ssl_{name}", usual) for name, usual in TLS.items()}
    return {**at, "host": str(made.host), "port": int(made.port), "tls": tls if url.startswith("rediss://") else None}


def _auth(user: str | None, password: str | None) -> list[bytes]:
    return [each.encode() for each in (user, password) if each] if password else []
