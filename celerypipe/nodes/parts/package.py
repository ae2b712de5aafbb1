"""Packages that only some nodes need: imported when such a node is made ready, not when its module is."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from celerypipe.errors import ConfigError


def required(module: str, mark: str, extra: str) -> Any:
    """Return a module that a node needs; :class:`ConfigError` says what to install where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"{mark} needs {module} ({error}): pip install 'celerypipe[{extra}]'") from error
