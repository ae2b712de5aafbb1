"""What a host may start, as its own machine says: ``host.toml``, read and checked.

Nothing that comes over the network names a program, a path, a module or an environment variable: it names a queue of
this file, and the machine's owner said here what that is.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from celerypipe.definition.names import environment_of, with_environment, wrong_queue
from celerypipe.environments.wanted import LIST_VARIABLE, Environment, line_of, listed, wanted_by
from celerypipe.errors import ConfigError, did_you_mean
from celerypipe.settings import READ_ONLY, Settings

#: What a host may be called: a part of a queue's name, and of a name of Celery's.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)
#: The queue of a host begins so.
QUEUE = "host."
#: What a queue says whose workers get the GPUs of the machine, one after the other.
ALL_GPUS = "gpus"


class RestartPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a worker that died is started again, in Nomad's words; times are seconds.

    After a death it waits ``delay``, doubled with each further one up to ``max_delay``, and up to ``jitter`` of that
    longer, by chance. At most ``attempts`` starts within ``interval``; then, by ``mode``, it is given up ("fail"), or
    waits until the interval is over ("delay").
    Source: https://developer.hashicorp.com/nomad/docs/job-specification/restart
    """

    attempts: int = 3
    interval: float = 60.0
    delay: float = 1.0
    max_delay: float = 30.0
    jitter: float = 0.25
    mode: Literal["fail", "delay"] = "fail"


class Autoscale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many workers of a queue there are, by what waits for them: between ``min`` and ``max``.

    More as soon as the oldest message has waited for ``target_wait`` seconds, fewer once they had too little to do for
    ``cooldown`` seconds.
    """

    max: int
    min: int = 0
    target_wait: float = 5.0
    cooldown: float = 30.0


class QueueRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be started of one queue: at most ``most`` workers. ``restart``: other than that of the whole host.

    ``environments``: those in which they may run, besides that of the queue. ``devices``: each worker sees one of
    these, as ``CUDA_VISIBLE_DEVICES``; "gpus": one of all that there are.
    """

    most: int = 1
    environments: tuple[str, ...] = ()
    devices: Literal["gpus"] | tuple[str | int, ...] = ()
    restart: RestartPolicy | None = None
    autoscale: Autoscale | None = None


class CacheRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The result cache of what nodes on this machine start: as ``CELERYPIPE_CACHE_URL``, ``_BYTES`` and ``_CACHE``."""

    url: str | None = None
    bytes: str | int | None = None
    read_only: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    queues: dict[str, QueueRule]
    name: str = ""
    restart: RestartPolicy = RestartPolicy()
    cache: CacheRule = CacheRule()
    environments: dict[str, Any] = {}


#: The keys of each table, by where they stand: an unknown one is answered with the nearest.
_TABLES: dict[str, type[msgspec.Struct]] = {
    "": _File,
    "restart": RestartPolicy,
    "cache": CacheRule,
    "queues.*": QueueRule,
    "queues.*.restart": RestartPolicy,
    "queues.*.autoscale": Autoscale,
}

EXAMPLE = """\
# What `celerypipe host` may start on this machine.
[queues.gpu]
most = 1    # workers of this queue at most; worker_configs/gpu.toml says what they serve
"""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a host may start. ``name``: what the file calls the host, empty if it does not."""

    path: Path
    queues: dict[str, QueueRule]
    name: str = ""
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    cache: CacheRule = field(default_factory=CacheRule)
    environments: dict[str, Environment] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Allowed:
        """Read the file; :class:`ConfigError` names file, line and cure."""
        try:
            text = path.read_text(encoding="utf-8")
            content = tomllib.loads(text)
        except FileNotFoundError:
            raise ConfigError(
                f"there is no {path}: a host starts only what its own list allows; write one:\n\n{EXAMPLE}"
            ) from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"{path}: {error}") from None
        if complaint := _unknown(content):
            place, said = complaint
            raise ConfigError(f"{path}:{line_of(place, text)}: {said}")
        found = _converted(path, content)
        for place, said in _wrong_values(found):
            raise ConfigError(f"{path}:{line_of(place, text)}: {said}")
        environments = listed({"environments": found.environments}, path, text)
        return cls(path, found.queues, found.name, found.restart, found.cache, environments)

    def named(self, queue: str) -> str:
        """Return the queue of this list that another one is, or belongs to as an environment; empty: there is none."""
        own, environment = environment_of(queue)
        if queue in self.queues:
            return queue
        return own if own in self.queues and environment in self.queues[own].environments else ""

    @property
    def startable(self) -> dict[str, int]:
        """The queues of which workers are started, and those of their environments; how many of all together."""
        each = ((queue, name, rule) for queue, rule in self.queues.items() for name in ("", *rule.environments))
        return dict(sorted((with_environment(queue, name), rule.most) for queue, name, rule in each))

    def policy(self, queue: str) -> RestartPolicy:
        """Return how workers of a queue are started again."""
        rule = self.queues.get(self.named(queue))
        return rule.restart if rule is not None and rule.restart is not None else self.restart

    def environment(self) -> dict[str, str]:
        """Return what workers of this machine find in their environment besides that of the host."""
        said = {LIST_VARIABLE: str(self.path.absolute())} if self.environments else {}
        if self.cache.url is not None:
            said["CELERYPIPE_CACHE_URL"] = self.cache.url
        if self.cache.bytes is not None:
            said["CELERYPIPE_CACHE_BYTES"] = str(self.cache.bytes)
        if self.cache.read_only:
            said["CELERYPIPE_CACHE"] = READ_ONLY
        return said

    def require_configs(self) -> None:
        """Raise :class:`ConfigError` for a queue of which a worker would serve nothing, or have no environment."""
        folder = Settings.from_environment().worker_configs
        for queue, rule in self.queues.items():
            for name in ("", *rule.environments):
                wanted = wanted_by(with_environment(queue, name), folder, self.path)
                if wanted is not None and wanted.image:
                    raise ConfigError(
                        f"{self.path}: [queues.{queue}]: {wanted.source} is an image, and a host starts no containers: "
                        f"start that worker beside it, by `celerypipe worker -Q {with_environment(queue, name)}`"
                    )
            queue = environment_of(queue)[0]
            if (folder / f"{queue}.toml").is_file() or Path("tasks", f"{queue}.py").is_file():
                continue
            known = {path.stem for path in folder.glob("*.toml")} | {p.stem for p in Path("tasks").glob("[!_]*.py")}
            raise ConfigError(
                f"{self.path}: queue {queue!r}: there is no {folder}/{queue}.toml and no tasks/{queue}.py in "
                f"{Path.cwd()}{did_you_mean(queue, known)}; start the host in the folder of your project, or write "
                f'{folder}/{queue}.toml with imports = ["MODULE"]'
            )


def _converted(path: Path, content: dict[str, Any]) -> _File:
    queues = content.get("queues")
    place = ""
    try:
        if isinstance(queues, dict):  # each by itself: of a mapping no error names the key
            rules = {}
            for queue, rule in queues.items():
                place = f"queues.{queue}"
                rules[queue] = msgspec.convert(rule, QueueRule)
            place, content = "", {**content, "queues": rules}
        return msgspec.convert(content, _File)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_plain(str(error), place)}") from None


def wrong_host(name: str) -> str:
    """Say why a host cannot be called so, and what to do; nothing if it can."""
    if _NAME.fullmatch(name):
        return ""
    return (
        f"{name!r} is no name for a host: write letters (a to z, A to Z), digits, '-' and '_', at most 63, the first "
        "one a letter or a digit, such as gpu-box-1"
    )


def _unknown(content: dict[str, Any]) -> tuple[str, str] | None:
    """Return the place of the first key that is not known, and what is said of it."""

    def look(table: Any, place: str, pattern: str) -> tuple[str, str] | None:
        if not isinstance(table, dict):
            return None
        shape = _TABLES.get(pattern)
        for key, value in table.items():
            at = f"{place}.{key}" if place else key
            if shape is not None and key not in shape.__struct_fields__:
                where = f" in [{place}]" if place else ""
                return at, f"unknown key {key!r}{where}{did_you_mean(key, shape.__struct_fields__)}"
            inner = f"{pattern}.{key}" if pattern else key
            if found := look(value, at, f"{pattern}.*" if pattern == "queues" else inner):
                return found
        return None

    return look(content, "", "")


def _wrong_values(found: _File) -> list[tuple[str, str]]:
    """Return what has the right type, and no sense."""
    wrong: list[tuple[str, str]] = []
    if found.name and (complaint := wrong_host(found.name)):
        wrong.append(("name", f"name: {complaint}"))
    if not found.queues:
        wrong.append(("queues", "[queues] is empty: nothing could be started; add a table, such as [queues.gpu]"))
    wrong += _wrong_policy("restart", found.restart)
    for queue, rule in found.queues.items():
        at = f"queues.{queue}"
        if (complaint := wrong_queue(queue)) or queue.startswith(QUEUE):
            wrong.append((at, f"[{at}]: {complaint or f'queues of hosts begin with {QUEUE!r}; choose another name'}"))
        if rule.most < 1:
            wrong.append((f"{at}.most", f"[{at}] most must be 1 or more, not {rule.most}; or leave the queue out"))
        if rule.devices != ALL_GPUS and not all(str(each).strip() for each in rule.devices):
            wrong.append((f"{at}.devices", f'[{at}] devices: one has no name; write devices = ["0", "1"]'))
        if rule.restart is not None:
            wrong += _wrong_policy(f"{at}.restart", rule.restart)
        if (scale := rule.autoscale) is not None:
            fine = 0 <= scale.min <= scale.max and 1 <= scale.max <= rule.most
            if not fine:
                wrong.append((f"{at}.autoscale", f"[{at}.autoscale]: write 0 <= min <= max <= most ({rule.most})"))
            if scale.target_wait <= 0 or scale.cooldown < 0:
                wrong.append((f"{at}.autoscale", f"[{at}.autoscale]: target_wait above 0, and cooldown 0 or more"))
    return wrong


def _wrong_policy(place: str, policy: RestartPolicy) -> list[tuple[str, str]]:
    numbers = {name: getattr(policy, name) for name in ("attempts", "interval", "delay", "max_delay", "jitter")}
    wrong = [
        (f"{place}.{name}", f"[{place}] {name} must be 0 or more, not {number}")
        for name, number in numbers.items()
        if number < 0
    ]
    if policy.interval == 0:
        wrong.append((f"{place}.interval", f"[{place}] interval must be above 0"))
    return wrong


def _plain(text: str, table: str) -> str:
    """What msgspec says, with the place first, as TOML has it."""
    said, _, inner = text.partition(" - at `$")
    place = f"{table}{inner.rstrip('`')}".strip(".")
    return f"{place}: {said}" if place else said


def host_named(given: str | None, allowed: Allowed) -> str:
    """Return what this host is called: by the option, the file, or its machine; :class:`ConfigError` if wrong."""
    name = given or allowed.name or re.sub(r"[^A-Za-z0-9_-]", "-", os.uname().nodename.partition(".")[0])
    if complaint := wrong_host(name):
        raise ConfigError(f"--name: {complaint}")
    return name
