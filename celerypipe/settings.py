"""Settings: the environment, read once at the edge, as one frozen object.

======================================  ===========================================================================
``CELERYPIPE_REDIS_URL``                where Redis is: ``redis://``, ``rediss://``, ``unix:///path/to.sock?db=0`` or
                                        ``sentinel://host:26379,host:26379/master/0``
``CELERYPIPE_PLUGINS``                  plugin folders in juturna's layout, separated by ``:``
``CELERYPIPE_ALLOW``                    folders that pipeline files, and pipelines sent to a worker here, may read and
                                        write besides their own, separated by ``:``
``CELERYPIPE_SHARED_MEMORY``            ``no``: nothing goes through ``/dev/shm``, also not on one machine
``CELERYPIPE_KEYS``                     keys that sign all messages, separated by commas; the first one signs
``CELERYPIPE_CACHE``                    ``no``: no result is looked up or kept, whatever a definition says
``CELERYPIPE_CACHE_BYTES``              how much of Redis kept results may take: bytes, ``512MB``, ``2GiB``
                                        (1GiB)
``CELERYPIPE_CACHE_URL``                where results are kept besides: ``file:///…``, ``s3://…`` and what else fsspec
                                        knows; ``redis://…``: there instead of in the pipeline's Redis
``CELERYPIPE_FILES``                    where a worker makes its folder for files that are sent to it; default: the
                                        machine's temporary folder
``CELERYPIPE_FILES_BYTES``              how much of them it keeps there, as above (4GiB)
``CELERYPIPE_WORKER_CONFIGS``           the folder with one ``<queue>.toml`` a queue; default ``worker_configs``
======================================  ===========================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from celerypipe.errors import ConfigError
from celerypipe.redis.sentinel import SCHEME
from celerypipe.redis.signing import VARIABLE, Keyring
from celerypipe.redis.url import client_url

#: What a worker keeps of the files that are sent to it, where nothing is said.
FILES_BYTES = 4 * 1024**3
#: What kept results may take in Redis where nothing is said.
CACHE_BYTES = 1024**3
#: What may stand behind a number of bytes.
SIZES = {"": 1, "b": 1} | {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
SIZES |= {f"{letter}{ending}": 1024**power for power, letter in enumerate("kmgt", 1) for ending in ("ib", "i")}


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What the environment says about kept results.

    ``bytes``: what they may take in Redis. ``url``: where they are kept besides, or a Redis of their own; it may hold a
    password. ``enabled``: False switches the cache off.
    """

    bytes: int = CACHE_BYTES
    url: str | None = field(default=None, repr=False)
    enabled: bool = True

    @property
    def redis_url(self) -> str | None:
        """The Redis of its own, if it has one."""
        is_redis = (self.url or "").startswith(("redis://", "rediss://", "unix://", f"{SCHEME}://"))
        return self.url if is_redis else None


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says. ``redis_url`` is None when it says nothing about Redis."""

    redis_url: str | None = None
    plugins: tuple[Path, ...] = ()
    worker_configs: Path = Path("worker_configs")
    shared_memory: bool = True
    allowed: tuple[Path, ...] = ()
    keyring: Keyring | None = field(default=None, repr=False)
    cache: CacheSettings = CacheSettings()
    files: Path | None = None
    files_bytes: int = FILES_BYTES

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables above; :class:`ConfigError` names the variable that is wrong."""
        url = environment.get("CELERYPIPE_REDIS_URL")
        plugins, allowed = _folders("CELERYPIPE_PLUGINS", environment), allowed_folders(environment)
        configs = Path(environment.get("CELERYPIPE_WORKER_CONFIGS") or "worker_configs")
        shared_memory = _yes("CELERYPIPE_SHARED_MEMORY", environment)
        keyring = Keyring.parse(environment.get(VARIABLE, ""))
        cache_url = environment.get("CELERYPIPE_CACHE_URL")
        cache = CacheSettings(
            _bytes("CELERYPIPE_CACHE_BYTES", environment, CACHE_BYTES),
            _cache_url(cache_url) if cache_url else None,
            _yes("CELERYPIPE_CACHE", environment),
        )
        files = Path(environment["CELERYPIPE_FILES"]).absolute() if environment.get("CELERYPIPE_FILES") else None
        files_bytes = _bytes("CELERYPIPE_FILES_BYTES", environment, FILES_BYTES)
        redis_url = _address("CELERYPIPE_REDIS_URL", url) if url else None
        return cls(redis_url, plugins, configs, shared_memory, allowed, keyring, cache, files, files_bytes)


def allowed_folders(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Return the folders that a definition from elsewhere may read and write besides its own."""
    return _folders("CELERYPIPE_ALLOW", environment)


def _folders(name: str, environment: Mapping[str, str]) -> tuple[Path, ...]:
    return tuple(Path(part) for part in environment.get(name, "").split(os.pathsep) if part)


def _yes(name: str, environment: Mapping[str, str]) -> bool:
    said = environment.get(name, "").lower()
    if said in ("no", "0", "off", "false"):
        return False
    if said in ("", "yes", "1", "on", "true"):
        return True
    raise ConfigError(f"{name}: {said!r} is neither yes nor no")


def _bytes(name: str, environment: Mapping[str, str], default: int) -> int:
    text = environment.get(name) or str(default)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    size = int(float(found[1]) * SIZES[found[2]]) if found and found[2] in SIZES else 0
    if not size:
        raise ConfigError(f"{name}: {text!r} is no number of bytes; write 512MB, 2GiB or 1073741824")
    return size


def _address(name: str, url: str) -> str:
    try:
        return client_url(url)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _cache_url(url: str) -> str:
    """A place for results; what looks like a Redis has to be one."""
    scheme, colon, rest = url.partition("://")
    if scheme in ("redis", "rediss", "unix", SCHEME, "redis+socket", "socket"):
        return _address("CELERYPIPE_CACHE_URL", url)
    if not colon or not rest or not re.fullmatch(r"[a-z][a-z0-9+.:-]*", scheme):
        cure = f"file://{Path(url).absolute()}" if url.startswith(("/", ".", "~")) else "file:///var/cache/results"
        _, at, place = url.rpartition("@")
        raise ConfigError(
            f"CELERYPIPE_CACHE_URL: {(f'***{at}' if at else '') + place!r} is no URL; write {cure} or s3://bucket/folder"
        )
    return url
