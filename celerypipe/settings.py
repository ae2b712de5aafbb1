"""Settings: the environment, read once at the edge, as one frozen object."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from celerypipe.errors import ConfigError
from celerypipe.folders import distinct, path_of
from celerypipe.process.log import FORMATS
from celerypipe.process.log import VARIABLE as LOG_VARIABLE
from celerypipe.redis.address import DEFAULT_ADDRESS, Address
from celerypipe.redis.namespace import DEFAULT, namespace
from celerypipe.redis.namespace import VARIABLE as NAMESPACE_VARIABLE
from celerypipe.redis.secret import hidden
from celerypipe.redis.signing import VARIABLE, Keyring
from celerypipe.redis.url import SCHEMES, read_address


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that celerypipe reads: for ``celerypipe --help`` and the reference."""

    name: str
    meaning: str
    default: str = ""
    unit: str = ""
    example: str = ""


#: The variables that say where Redis is, the first one first. The other one is Celery's, and may be another project's.
REDIS_VARIABLE, BROKER_VARIABLE = "CELERYPIPE_REDIS_URL", "CELERY_BROKER_URL"

#: Which worker of which host this one is, ``<host>/<set>/<number>/<token>``; said by the host that starts it.
HOST_VARIABLE = "CELERYPIPE_HOST"

VARIABLES = (
    Variable(
        REDIS_VARIABLE,
        "The address of Redis: redis://, rediss:// (TLS), unix:// or sentinel://. The option --redis comes before it.",
        "`CELERY_BROKER_URL`, else `celerypipe run` starts a temporary Redis and all others use "
        "`redis://localhost:6379/0`",
        "URL",
        "redis://:PASSWORD@redis-host:6379/0",
    ),
    Variable(
        NAMESPACE_VARIABLE,
        "The name of a project. Projects with different names share one Redis and see nothing of each other.",
        DEFAULT,
        "letters, digits, - _ .",
        "team-a",
    ),
    Variable(
        "CELERYPIPE_PLUGINS",
        "Folders with plugin nodes, in juturna's layout, for all pipelines.",
        "none",
        f"paths, separated by {os.pathsep}",
        "/srv/plugins",
    ),
    Variable(
        "CELERYPIPE_ALLOW",
        "Folders that pipeline files may read and write besides their own, and that nodes on a worker may.",
        "none",
        f"paths, separated by {os.pathsep}",
        "/data:/scratch",
    ),
    Variable(
        "CELERYPIPE_WORKER_CONFIGS",
        "The folder with one file for each queue, such as gpu.toml; read by workers.",
        "worker_configs",
        "path",
        "/etc/celerypipe",
    ),
    Variable(
        "CELERYPIPE_ENVIRONMENTS",
        "The folder with the environments that were built for workers.",
        "celerypipe/environments in the user's cache folder",
        "path",
        "/scratch/environments",
    ),
    Variable(
        VARIABLE,
        "Keys that sign all messages: the first one signs, all of them verify. The same for runs and workers.",
        "none: nothing is signed",
        "texts of 16 characters or more, separated by commas",
        "3f9c02ab77e1d5…",
    ),
    Variable(
        "CELERYPIPE_SHARED_MEMORY",
        "no: large payloads go through Redis and not through /dev/shm, also on one machine.",
        "yes",
        "yes or no",
        "no",
    ),
    Variable(
        "CELERYPIPE_CACHE",
        "no: the result cache is neither read nor written. read-only: results that are kept are used, and none added.",
        "yes",
        "yes, no or read-only",
        "no",
    ),
    Variable("CELERYPIPE_CACHE_BYTES", "How much memory of Redis the result cache may use.", "1GiB", "bytes", "512MB"),
    Variable(
        "CELERYPIPE_CACHE_URL",
        "A second place for cached results: file://, s3:// and what else fsspec knows. With redis:// they are kept in "
        "that Redis instead.",
        "none",
        "URL",
        "file:///var/cache/results",
    ),
    Variable(
        "CELERYPIPE_FILES",
        "Where a worker makes its folder for files that are sent to it.",
        "the temporary folder of the machine",
        "path",
        "/scratch",
    ),
    Variable("CELERYPIPE_FILES_BYTES", "How much of those files a worker keeps.", "4GiB", "bytes", "20GiB"),
    Variable(
        LOG_VARIABLE,
        "How workers and commands write what they log: Celery's layout and lines for people, or a JSON object a line.",
        FORMATS[0],
        " or ".join(FORMATS),
        "json",
    ),
    Variable(
        BROKER_VARIABLE,
        "Celery's own variable: the address of Redis where CELERYPIPE_REDIS_URL is not set. An address that is none of "
        "Redis is ignored, with a warning.",
        "none",
        "URL",
        "redis://redis-host:6379/0",
    ),
)

#: What a worker keeps of the files that are sent to it, where nothing is said.
FILES_BYTES = 4 * 1024**3
#: What kept results may take in Redis where nothing is said.
CACHE_BYTES = 1024**3
#: Of the result cache what is there is used, and nothing added.
READ_ONLY = "read-only"
#: What may stand behind a number of bytes.
SIZES = {"": 1, "b": 1} | {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
SIZES |= {f"{letter}{ending}": 1024**power for power, letter in enumerate("kmgt", 1) for ending in ("ib", "i")}


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Where Redis is, and who said so; ``unheard``: what others said that does not count, a sentence each.

    ``namespace``: whose keys and queues are meant there; it is that of ``address``, too.
    """

    address: Address | None = None
    said_by: str = ""
    unheard: tuple[str, ...] = ()
    namespace: str = DEFAULT

    @classmethod
    def find(
        cls, given: str | None = None, environment: Mapping[str, str] = os.environ, *, option: str = "--redis"
    ) -> RedisSettings:
        """Ask the option, then the variables: the first one that says something counts, for runners and workers alike.

        :class:`ConfigError` names who says something wrong.
        """
        found, unheard = cls(), list[str]()
        said = [(option, given), *((name, environment.get(name)) for name in (REDIS_VARIABLE, BROKER_VARIABLE))]
        for name, text in said:
            if not text or not text.strip():
                continue
            foreign = name == BROKER_VARIABLE and _scheme(text) not in SCHEMES
            if found.address is None and not foreign:
                found = cls(_address(name, text), name)
            elif found.address is None:
                cure = f"if it is meant, write {REDIS_VARIABLE}=redis://host:6379/0"
                unheard.append(f"{name} is no address of Redis, and is ignored; {cure}")
            elif not foreign and not _names(text, found.address):
                unheard.append(
                    f"{name} names another Redis, {hidden(text)}: it is ignored, {found.said_by} comes first"
                )
        space = namespace(environment.get(NAMESPACE_VARIABLE))
        return cls(found.address and replace(found.address, namespace=space), found.said_by, tuple(unheard), space)

    @property
    def or_default(self) -> Address:
        """Where it is, or where it usually is."""
        return self.address or replace(DEFAULT_ADDRESS, namespace=self.namespace)

    def __str__(self) -> str:
        by = f"named by {self.said_by}" if self.address is not None else "the default"
        where = "" if self.namespace == DEFAULT else f", namespace {self.namespace!r}"
        return f"Redis: {self.or_default}, {by}{where}"


@dataclass(frozen=True)
class CacheSettings:
    """What the environment says about kept results.

    ``bytes``: what they may take in Redis. ``url``: where they are kept besides, or a Redis of their own; it may hold a
    password. ``enabled``: False switches the cache off; ``read_only``: results are used, and none kept.
    """

    bytes: int = CACHE_BYTES
    url: str | None = field(default=None, repr=False)
    enabled: bool = True
    namespace: str = DEFAULT
    read_only: bool = False

    @cached_property
    def redis(self) -> Address | None:
        """The Redis of its own, if it has one."""
        is_redis = self.url and _scheme(self.url) in SCHEMES
        return replace(read_address(self.url), namespace=self.namespace) if self.url and is_redis else None

    @property
    def shown(self) -> str:
        """Return what it is, for people: two that differ keep results in different places, or in different ways."""
        if not self.enabled:
            return "off"
        return (hidden(self.url) if self.url else "the Redis of the run") + (" (read-only)" if self.read_only else "")

    @property
    def beside(self) -> str:
        """Where results are kept besides, each namespace in a folder of its own; empty: nowhere."""
        if not self.url or self.redis is not None:
            return ""
        return self.url if self.namespace == DEFAULT else f"{self.url.rstrip('/')}/{self.namespace}"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings, read from the environment variables."""

    redis: RedisSettings = RedisSettings()
    plugins: tuple[Path, ...] = ()
    worker_configs: Path = Path("worker_configs")
    shared_memory: bool = True
    allowed: tuple[Path, ...] = ()
    keyring: Keyring | None = field(default=None, repr=False)
    cache: CacheSettings = CacheSettings()
    files: Path | None = None
    files_bytes: int = FILES_BYTES
    log_format: str = "text"
    environments: Path = field(default_factory=lambda: cache_folder(os.environ))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables; :class:`ConfigError` names the variable that is wrong."""
        plugins, allowed = _folders("CELERYPIPE_PLUGINS", environment), allowed_folders(environment)
        configs = path_of(environment.get("CELERYPIPE_WORKER_CONFIGS") or "worker_configs")
        shared_memory = _yes("CELERYPIPE_SHARED_MEMORY", environment)
        found = RedisSettings.find(None, environment)
        keyring = Keyring.parse(environment.get(VARIABLE, ""), found.namespace)
        cache_url = environment.get("CELERYPIPE_CACHE_URL")
        only_read = environment.get("CELERYPIPE_CACHE", "").lower() == READ_ONLY
        cache = CacheSettings(
            _bytes("CELERYPIPE_CACHE_BYTES", environment, CACHE_BYTES),
            _cache_url(cache_url) if cache_url else None,
            only_read or _yes("CELERYPIPE_CACHE", environment, f", nor {READ_ONLY}"),
            found.namespace,
            only_read,
        )
        files = path_of(environment["CELERYPIPE_FILES"]).absolute() if environment.get("CELERYPIPE_FILES") else None
        files_bytes = _bytes("CELERYPIPE_FILES_BYTES", environment, FILES_BYTES)
        wanted = _log_format(environment)
        built = cache_folder(environment)
        return cls(found, plugins, configs, shared_memory, allowed, keyring, cache, files, files_bytes, wanted, built)


def allowed_folders(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Return the folders that a definition from elsewhere may read and write besides its own."""
    return _folders("CELERYPIPE_ALLOW", environment)


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder with the environments that were built."""
    if said := environment.get("CELERYPIPE_ENVIRONMENTS"):
        return path_of(said).absolute()
    cache = environment.get("XDG_CACHE_HOME")
    return (path_of(cache) if cache else path_of("~/.cache")) / "celerypipe" / "environments"


def _folders(name: str, environment: Mapping[str, str]) -> tuple[Path, ...]:
    return distinct(path_of(part) for part in environment.get(name, "").split(os.pathsep) if part)


def _yes(name: str, environment: Mapping[str, str], besides: str = "") -> bool:
    said = environment.get(name, "").lower()
    if said in ("no", "0", "off", "false"):
        return False
    if said in ("", "yes", "1", "on", "true"):
        return True
    raise ConfigError(f"{name}: {said!r} is neither yes nor no{besides}")


def _log_format(environment: Mapping[str, str]) -> str:
    wanted = environment.get(LOG_VARIABLE, "").strip().lower() or FORMATS[0]
    if wanted not in FORMATS:
        raise ConfigError(f"{LOG_VARIABLE}: {wanted!r} is neither {' nor '.join(FORMATS)}")
    return wanted


def _bytes(name: str, environment: Mapping[str, str], default: int) -> int:
    text = environment.get(name) or str(default)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    size = int(float(found[1]) * SIZES[found[2]]) if found and found[2] in SIZES else 0
    if not size:
        raise ConfigError(f"{name}: {text!r} is no number of bytes; write 512MB, 2GiB or 1073741824")
    return size


def _scheme(url: str) -> str:
    return url.strip().partition("://")[0].lower()


def _names(text: str, address: Address) -> bool:
    try:
        return read_address(text) == address
    except ConfigError:
        return False


def _address(name: str, url: str) -> Address:
    try:
        return read_address(url)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _cache_url(url: str) -> str:
    """A place for results; what looks like a Redis has to be one."""
    scheme, colon, rest = url.partition("://")
    if _scheme(url) in SCHEMES:
        return _address("CELERYPIPE_CACHE_URL", url).url
    if not colon or not rest or not re.fullmatch(r"[a-z][a-z0-9+.:-]*", scheme):
        cure = f"file://{Path(url).absolute()}" if url.startswith(("/", ".", "~")) else "file:///var/cache/results"
        raise ConfigError(f"CELERYPIPE_CACHE_URL: {hidden(url)!r} is no URL; write {cure} or s3://bucket/folder")
    return url
