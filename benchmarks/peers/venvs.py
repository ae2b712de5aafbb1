"""An environment per peer: its packages, a Python that can run them, made once under ``.venv-peers/``.

The lists stand here and not in setup.py's extras: pip installs an extra together with celerypipe's own requirements, so
a peer would be resolved against Celery, Redis and click instead of alone.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from celerypipe.process.version import VERSION

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venv-peers"
INSTALL_LIMIT = 600.0
#: What the results tell the versions of, wherever it is installed.
TOLD = {
    *("ray", "distributed", "dask", "dramatiq", "taskiq", "taskiq-redis", "taskiq-pipelines", "juturna"),
    *("redis", "hiredis", "grpcio", "protobuf", "numpy"),
}


@dataclass(frozen=True)
class Recipe:
    """What pip installs, and the oldest Python that it runs on."""

    requires: tuple[str, ...]
    python: tuple[int, int] = (3, 11)


RECIPES = {
    "ray": Recipe(("ray", "numpy")),
    "dask": Recipe(("distributed", "numpy")),
    "dramatiq": Recipe(("dramatiq[redis]", "hiredis", "numpy")),
    "taskiq": Recipe(("taskiq", "taskiq-redis", "taskiq-pipelines", "hiredis", "numpy")),
    "juturna": Recipe(("juturna[warp]",), python=(3, 12)),
}
#: Measured by the Python that measures, out of this checkout.
OURS = "celerypipe"
NAMES = (OURS, *RECIPES)


class NotInstalledError(Exception):
    """This peer has no environment on this machine; the message says why."""


@dataclass(frozen=True)
class Environment:
    """A peer's interpreter, and what its environment holds."""

    python: Path
    versions: dict[str, str]
    size_mib: int
    seconds: float


def environment(name: str) -> Environment:
    """Return the peer's environment; make it if it is not there yet. NotInstalledError says why it cannot be."""
    HOME.mkdir(exist_ok=True)
    if name == OURS:
        return _here()
    recipe, folder = RECIPES[name], HOME / name
    python, ready = folder / "bin" / "python", folder / ".ready.json"
    made = json.loads(ready.read_text(encoding="utf-8")) if ready.exists() else {}
    if made.get("requires") != list(recipe.requires):
        start = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        _run([str(interpreter(recipe.python)), "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *recipe.requires])
        made = {"requires": recipe.requires, "seconds": time.monotonic() - start}
        ready.write_text(json.dumps(made), encoding="utf-8")
    return Environment(python, _versions(python), _size(folder), made["seconds"])


def _here() -> Environment:
    versions = {"python": platform.python_version(), OURS: VERSION}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # a copy without its history
        commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True)  # noqa: S607
        versions[OURS] = f"{VERSION} ({commit.strip()})"
    packages = ("celery", "kombu", "redis", "hiredis", "numpy")
    return Environment(
        Path(sys.executable), versions | {name: importlib.metadata.version(name) for name in packages}, 0, 0.0
    )


def interpreter(oldest: tuple[int, int]) -> Path:
    """A Python that is not older: this one, one on PATH, one of pyenv's."""
    if sys.version_info[:2] >= oldest:
        return Path(sys.executable)
    for minor in range(oldest[1], oldest[1] + 4):
        found = shutil.which(f"python3.{minor}")
        kept = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        for candidate in ([Path(found)] if found else []) + kept:
            if _starts(candidate):
                return candidate
    raise NotInstalledError(f"needs Python {oldest[0]}.{oldest[1]} or newer; this machine has none")


def _starts(python: Path) -> bool:
    # pyenv's shims lie on PATH for versions that are not switched on, and end with an error.
    return subprocess.run([str(python), "-c", "import venv"], capture_output=True, check=False).returncode == 0  # noqa: S603


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise NotInstalledError(f"{' '.join(command[1:])}: not done after {INSTALL_LIMIT:.0f} s") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise NotInstalledError(f"{' '.join(command[1:])}: {said[-1] if said else done.returncode}")


def _versions(python: Path) -> dict[str, str]:
    listing = subprocess.check_output(  # noqa: S603  # the environment's own pip
        [str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
        text=True,
        stderr=subprocess.DEVNULL,
    )
    version = subprocess.check_output([str(python), "-c", "import platform as p; print(p.python_version())"], text=True)  # noqa: S603
    return {"python": version.strip()} | {
        item["name"]: item["version"] for item in json.loads(listing) if item["name"] in TOLD
    }


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) // 2**20
