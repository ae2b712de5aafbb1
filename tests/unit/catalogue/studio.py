"""A project with nodes in it, and the codes that they have."""

from __future__ import annotations

import importlib
import sys

from celerypipe.catalogue.code import code_of
from celerypipe.contract.contract import node_class

#: Its files.
PROJECT = {
    "studio/__init__.py": "",
    "studio/gpu.py": """
        import json
        import numpy
        import celerypipe
        from celerypipe import Proc, node
        from . import helpers
        from studio.bases import Base
        import library.words

        FACTOR = 2

        def local_helper(value):
            return value * FACTOR

        class Detect(Proc):
            def update(self, message):
                from .lazy import late
                return message.with_payload(late(helpers.double(local_helper(message.payload))))

        class Other(Proc):
            def update(self, message):
                return None

        @node
        def plain(value):
            return value

        class Child(Base):
            pass

        class Versioned(Proc):
            version = "3"

        class Heir(Versioned):
            pass

        @node(version="7")
        def declared(value):
            return value
        """,
    "studio/helpers.py": "from .deep.inner import two\n\ndef double(value):\n    return value * two()\n",
    "studio/deep/inner.py": "def two():\n    return 2\n",
    "studio/deep/unused.py": "NOTHING = 0\n",
    "studio/lazy.py": "def late(value):\n    return value\n",
    "studio/bases.py": """
        import importlib
        from celerypipe import Proc
        class Base(Proc):
            def update(self, message):
                return importlib.import_module("studio.called").run(message)
        """,
    "studio/called.py": "def run(message):\n    return message\n",
    "library/words.py": "WORD = 'hello'\n",
}


def codes_in(folder: str) -> dict[str, str]:
    """Import the project anew and return the codes of its nodes."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("studio", "library")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    sys.path.insert(0, folder)
    try:
        names = vars(importlib.import_module("studio.gpu"))
        return {name: code_of(found) for name, value in names.items() if (found := node_class(value)) is not None}
    finally:
        sys.path.remove(folder)
