"""A worker goes on in a container: the line of docker or podman that it becomes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from celerypipe.environments.wanted import Environment
from celerypipe.errors import ConfigError

#: Those that are looked for, the first one that is there is taken.
PROGRAMS = ("docker", "podman")
#: Which variables a worker gets from outside: by name alone, so that no value stands on the line, where ps shows it.
_PASSED = ("CELERYPIPE_", "CELERY_", "JT_ENV_", "CUDA_", "NVIDIA_", "OMP_", "TZ", "NO_COLOR")
#: Folders are named by these.
_READ, _WRITTEN = ("CELERYPIPE_WORKER_CONFIGS", "CELERYPIPE_PLUGINS"), ("CELERYPIPE_ALLOW",)
#: The options that give a worker the address of Redis.
_ADDRESS = ("--redis", "-b", "--broker")
#: Seconds that `docker stop` waits: the worker ends by itself, and its file says when.
_PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Outside:
    """What a container is started from. ``program``: docker or podman; ``gpu``: the machine has one of NVIDIA's.

    ``variables``: the names of those that a worker gets. ``folders``: what it sees of the files, "ro" or "rw".
    """

    program: str
    folder: Path
    folders: Mapping[Path, str]
    variables: Sequence[str]
    user: int
    group: int
    process: int
    gpu: bool

    @classmethod
    def here(cls, environment: Environment, variables: Mapping[str, str]) -> Outside:
        """This machine and this process; :class:`ConfigError`: neither program is here."""
        found = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if found is None:
            raise ConfigError(
                f"{environment.source}: the image {environment.image!r} needs docker or podman, and neither is in the "
                "PATH: install one of them, or write requirements = [...] in place of the image"
            )
        gpu = Path("/proc/driver/nvidia/gpus").is_dir()
        passed = sorted(name for name in variables if name.startswith(_PASSED))
        folder = Path.cwd()
        return cls(found, folder, _folders(folder, variables), passed, os.getuid(), os.getgid(), os.getpid(), gpu)


def line(image: str, words: Sequence[str], queues: Sequence[str], outside: Outside) -> list[str]:
    """Return the command that runs these words in a container.

    It has the network and the shared memory of its machine, and so reaches the same Redis and hands large payloads on
    without a copy. Of the machine's files it sees the project, which it cannot change.
    """
    podman = Path(outside.program).name == "podman"
    told = [outside.program, "run", "--rm", "--init", "--network", "host", "--ipc", "host"]
    told += ["--user", f"{outside.user}:{outside.group}"]
    if podman and outside.user:
        told += ["--userns", "keep-id"]
    told += ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]  # noqa: S108
    told += ["--stop-signal", "SIGTERM", "--stop-timeout", str(_PATIENCE)]
    if outside.gpu:
        told += ["--device", "nvidia.com/gpu=all"] if podman else ["--gpus", "all"]
    for folder, way in outside.folders.items():
        told += ["--mount", f"type=bind,source={folder},target={folder}{',readonly' if way == 'ro' else ''}"]
    told += ["--workdir", str(outside.folder), "--env", "HOME=/tmp"]
    for name in outside.variables:
        told += ["--env", name]
    return [*told, image, *words, *_named(words, queues, outside.process)]


def moved(words: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return words without the address of Redis, and an environment with it: it may have a password in it."""
    kept, found = list[str](), dict(environment)
    following = iter(words)
    for word in following:
        option, equals, value = word.partition("=")
        if option not in _ADDRESS:
            kept.append(word)
        elif address := value if equals else next(following, ""):
            found["CELERYPIPE_REDIS_URL"] = address
    return kept, found


def _folders(folder: Path, variables: Mapping[str, str]) -> dict[Path, str]:
    """Return what a worker has to see of what is there, each where it is outside: to read it, or to write there."""
    found = {folder: "ro"}
    for names, way in ((_READ, "ro"), (_WRITTEN, "rw")):
        for name in names:
            found.update((folder / place, way) for place in variables.get(name, "").split(os.pathsep) if place)
    scheme, _, place = variables.get("CELERYPIPE_REDIS_URL", "").partition("://")
    if scheme == "unix":
        found.setdefault(Path("/" + place.partition("?")[0].partition("/")[2]).parent, "ro")
    return {place: way for place, way in found.items() if place.is_dir()}


def _named(words: Sequence[str], queues: Sequence[str], process: int) -> list[str]:
    """Name a worker after the process outside: inside, two of them have the same number, and Celery wants two names."""
    if any(word.startswith(("-n", "--hostname")) for word in words):
        return []
    return ["-n", f"{'-'.join(queues).replace('@', '_')}.{process}@%h"]
