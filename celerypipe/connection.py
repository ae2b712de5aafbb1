"""A Redis client with explicit timeouts and no hidden retries, and its failures in our words.

redis-py retries by itself and blocks beyond ``socket_timeout`` when a server freezes; whoever uses these clients
decides about retries. One client per thread, never one per call.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from celerypipe.errors import ConfigError, RedisUnavailable

logger = logging.getLogger(__name__)

Client = redis.Redis

#: What redis-py raises when the server is away, frozen, loading or refusing: worth another try later.
Trouble = (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, OSError)

#: The same, and a server that answers with an error: nothing was done, whatever the reason.
Broken = (*Trouble, redis.ResponseError)

#: Seconds a call may take before the connection counts as broken; blocking reads add their own.
CALL_TIMEOUT = 10.0


def connect(url: str, *, name: str = "celerypipe", timeout: float = CALL_TIMEOUT) -> Client:
    """Return a client; it connects with its first command, and again after a failure."""
    over_network = {} if url.startswith("unix://") else {"socket_connect_timeout": 3.0, "socket_keepalive": True}
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout,
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),
        client_name=name,
        protocol=2,
        **over_network,
    )


def is_gone(url: str) -> bool:
    """Is it a socket whose folder was removed? A private Redis that ended for good leaves it so."""
    return url.startswith("unix://") and not Path(urlsplit(url).path).parent.is_dir()


def knock(url: str) -> None:
    """Raise :class:`ConfigError` if Redis refuses us: a wrong password stays wrong. One that is not there may come."""
    try:
        with connect(url, name="celerypipe-boot", timeout=2.0) as client:
            client.ping()
    except redis.AuthenticationError as error:
        raise ConfigError(f"{_shown(url)}: Redis needs a password, or refuses this one ({error})") from None
    except redis.ResponseError as error:
        raise ConfigError(f"{_shown(url)}: Redis refuses: {error}") from None
    except Trouble as error:
        logger.debug("Redis is not there yet: %s", error)


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn what redis-py raises inside the block into :class:`RedisUnavailable` with the cure."""
    shown = _shown(url)
    try:
        yield
    except redis.AuthenticationError as error:
        raise RedisUnavailable(
            f"Redis at {shown} needs a password or refuses this one ({error}); write redis://:PASSWORD@host:6379/0"
        ) from None
    except redis.exceptions.NoPermissionError as error:
        raise RedisUnavailable(f"Redis at {shown} does not allow this user what a pipeline needs: {error}") from None
    except redis.ResponseError as error:
        raise RedisUnavailable(f"Redis at {shown} refuses: {error}") from None
    except Trouble as error:
        raise RedisUnavailable(
            f"Redis is not there: {shown} ({error}); start it, or give its address with --redis or CELERYPIPE_REDIS_URL"
        ) from None


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
