"""Run the heavy stages of a Python pipeline on other machines.

The public names; each is loaded on first use, so that ``import celerypipe`` costs nothing and never imports Celery.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from celerypipe.process.version import VERSION

if TYPE_CHECKING:
    from celerypipe.catalogue.trial import check_node as check_node
    from celerypipe.contract.contract import Node as Node
    from celerypipe.contract.contract import Proc as Proc
    from celerypipe.contract.contract import Sink as Sink
    from celerypipe.contract.contract import Source as Source
    from celerypipe.contract.function import node as node
    from celerypipe.contract.positions import Position as Position
    from celerypipe.contract.reach import Reach as Reach
    from celerypipe.contract.readings import Readings as Readings
    from celerypipe.contract.watcher import Watcher as Watcher
    from celerypipe.definition.parts import Link as Link
    from celerypipe.definition.parts import NodeDefinition as NodeDefinition
    from celerypipe.definition.pipeline import Pipeline as Pipeline
    from celerypipe.embedded.embedded import Embedded as Embedded
    from celerypipe.errors import CelerypipeError as CelerypipeError
    from celerypipe.errors import CircuitOpen as CircuitOpen
    from celerypipe.errors import CodecError as CodecError
    from celerypipe.errors import ConfigError as ConfigError
    from celerypipe.errors import DeadlineExceeded as DeadlineExceeded
    from celerypipe.errors import DefinitionError as DefinitionError
    from celerypipe.errors import HostError as HostError
    from celerypipe.errors import NodeError as NodeError
    from celerypipe.errors import NodeFailed as NodeFailed
    from celerypipe.errors import NodeTimeout as NodeTimeout
    from celerypipe.errors import NoWorker as NoWorker
    from celerypipe.errors import RedisUnavailable as RedisUnavailable
    from celerypipe.errors import RunCancelled as RunCancelled
    from celerypipe.errors import UnknownMark as UnknownMark
    from celerypipe.errors import UnknownRun as UnknownRun
    from celerypipe.errors import WorkerLost as WorkerLost
    from celerypipe.errors import did_you_mean as did_you_mean
    from celerypipe.host.manager import Manager as Manager
    from celerypipe.mailbox.orders import Obeyed as Obeyed
    from celerypipe.message.console import Console as Console
    from celerypipe.message.files import File as File
    from celerypipe.message.files import file as file
    from celerypipe.message.logs import LogLine as LogLine
    from celerypipe.message.message import Message as Message
    from celerypipe.message.payload import Array as Array
    from celerypipe.message.payload import Audio as Audio
    from celerypipe.message.payload import Batch as Batch
    from celerypipe.message.payload import Bytes as Bytes
    from celerypipe.message.payload import Image as Image
    from celerypipe.message.payload import Object as Object
    from celerypipe.message.payload import Video as Video
    from celerypipe.runner.functions.call import Call as Call
    from celerypipe.runner.report import Report as Report
    from celerypipe.runner.runner import Runner as Runner
    from celerypipe.settings import Settings as Settings


__version__ = VERSION

#: Where the names above are; a type checker reads those, Python this.
_HOME = {
    "catalogue.trial": ("check_node",),
    "contract.contract": ("Node", "Proc", "Sink", "Source"),
    "contract.function": ("node",),
    "contract.positions": ("Position",),
    "contract.reach": ("Reach",),
    "contract.readings": ("Readings",),
    "contract.watcher": ("Watcher",),
    "definition.parts": ("Link", "NodeDefinition"),
    "definition.pipeline": ("Pipeline",),
    "embedded.embedded": ("Embedded",),
    "errors": (
        "CelerypipeError",
        "CircuitOpen",
        "CodecError",
        "ConfigError",
        "DeadlineExceeded",
        "DefinitionError",
        "HostError",
        "NoWorker",
        "NodeError",
        "NodeFailed",
        "NodeTimeout",
        "RedisUnavailable",
        "RunCancelled",
        "UnknownMark",
        "UnknownRun",
        "WorkerLost",
        "did_you_mean",
    ),
    "host.manager": ("Manager",),
    "mailbox.orders": ("Obeyed",),
    "message.console": ("Console",),
    "message.files": ("File", "file"),
    "message.logs": ("LogLine",),
    "message.message": ("Message",),
    "message.payload": ("Array", "Audio", "Batch", "Bytes", "Image", "Object", "Video"),
    "runner.functions.call": ("Call",),
    "runner.report": ("Report",),
    "runner.runner": ("Runner",),
    "settings": ("Settings",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # computed from the table above
    *sorted(_MODULE_OF),
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
