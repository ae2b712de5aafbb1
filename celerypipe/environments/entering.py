"""A process goes on in an environment: it becomes another one, of the same number, with that environment's Python."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from celerypipe.definition.names import GROUP
from celerypipe.environments import container
from celerypipe.environments.building import plan, ready
from celerypipe.environments.stored import Site
from celerypipe.environments.wanted import Environment, wanted_by
from celerypipe.errors import ConfigError
from celerypipe.settings import Settings

#: Which process went on in which environment: ``<pid> <folder>``. One that is still outside of it must not try again.
ENTERED_VARIABLE = "CELERYPIPE_ENVIRONMENT"


def wanted_by_all(queues: Iterable[str], folder: Path) -> Environment | None:
    """Return the environment of a worker of several queues; :class:`ConfigError` if they want different ones."""
    found = {queue: wanted_by(queue, folder) for queue in queues if not queue.startswith(GROUP)}
    different = {each and (each.requirements, each.python, each.image): (queue, each) for queue, each in found.items()}
    if len(different) > 1:
        said = ", ".join(
            f"queue {queue!r} wants {f'environment {each.name!r}' if each else 'what is installed here'}"
            for queue, each in different.values()
        )
        raise ConfigError(f"a worker runs in one environment, and {said}; start a worker for each of them")
    return next(iter(found.values()), None)


def enter(environment: Environment, words: Sequence[str], say: Callable[[str], None], *, build: bool = True) -> None:
    """Go on in an environment, with these words behind its Python; return if this process is in it.

    Without words this process can be no other one: then it is to be in it.
    ``build``: False also returns if it has to be built first.
    """
    if environment.image:
        _enter_image(environment, words, say)
        return
    planned = plan(environment, Settings.from_environment().environments)
    place = planned.place
    if not build and place.made() is None:
        return
    # From here on it is in use: until the last process that has this descriptor ends.
    lock = ready(planned, say)
    if is_inside(place):
        return
    if not words:
        raise ConfigError(f"{planned}: a worker enters it by its command line; start it with `celerypipe worker`")
    told = f"{os.getpid()} {place.folder}"
    if os.environ.get(ENTERED_VARIABLE) == told:
        raise ConfigError(
            f"{planned} was entered, and {sys.prefix} was found there in place of {place.folder}: remove it, and it is "
            f"built again: celerypipe environments rm {place.key}"
        )
    os.set_inheritable(lock, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(place.python, [str(place.python), *words], {**inside(place, os.environ), ENTERED_VARIABLE: told})  # noqa: S606


def _enter_image(environment: Environment, words: Sequence[str], say: Callable[[str], None]) -> None:
    """Go on in a container of an image; return if this process is in one."""
    told = f"image {environment.image}"
    if os.environ.get(ENTERED_VARIABLE) == told:
        return
    if not words:
        raise ConfigError(f"{environment.source}: a worker enters it by its command line; start `celerypipe worker`")
    # In front of the module stands how Python is told of it.
    typed, around = container.moved(words[1:], {**os.environ, ENTERED_VARIABLE: told})
    outside = container.Outside.here(environment, around)
    line = container.line(environment.image, typed, queues_in(typed), outside)
    say(f"goes on in a container of {environment.image}: {shlex.join(line)}")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(outside.program, line, around)  # noqa: S606  # a program of this machine, an image of its own file


def enter_built(queues: Iterable[str], words: Sequence[str]) -> None:
    """Go on in the environment of these queues before anything else is imported, if it was built already.

    All that takes time or goes wrong about it is for the worker itself, which can tell of it.
    """
    if os.environ.get(ENTERED_VARIABLE, "").startswith(f"{os.getpid()} "):
        return
    try:
        wanted = wanted_by_all(queues, Settings.from_environment().worker_configs)
        if wanted is not None:
            enter(wanted, words, lambda _: None, build=False)
    except ConfigError:
        return


def is_inside(place: Site) -> bool:
    """Does this process run in it?"""
    return Path(sys.prefix).resolve() == place.folder.resolve()


def inside(place: Site, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process in it: its programs come first, and no installed packages from elsewhere."""
    told = {name: value for name, value in environment.items() if name != "PYTHONHOME"}
    known = told.get("PYTHONPATH", "").split(os.pathsep)
    own = [folder for folder in known if Path(folder).name not in ("site-packages", "dist-packages")]
    if "PYTHONPATH" in told:
        told["PYTHONPATH"] = os.pathsep.join(own)
    path = [str(place.python.parent), *filter(None, [told.get("PATH")])]
    return {**told, "VIRTUAL_ENV": str(place.folder), "PATH": os.pathsep.join(path)}


def queues_in(words: Sequence[str]) -> list[str]:
    """Return the queues that options of a worker name."""
    said = ""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-Q", "--queues"):
            said = following
        elif word.startswith("--queues="):
            said = word.partition("=")[2]
        elif word.startswith("-Q"):
            said = word[2:]
    return [each.strip() for each in said.split(",") if each.strip()]
