"""Do these nodes import, as their files are now? Asked before the worker ends that has their older code.

``python -m celerypipe.embedded.rehearsal proc:tasks.gpu.Detect ...``; what is wrong is the last line on standard error.
"""

from __future__ import annotations

import os
import sys

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.errors import ConfigError
from celerypipe.settings import Settings


def main() -> None:
    """Import the nodes of the command line."""
    catalogue = Catalogue(Settings.from_environment().plugins)
    try:
        for word in sys.argv[1:]:
            kind, _, mark = word.partition(":")
            catalogue.find(mark, kind)
    except ConfigError as error:
        sys.stderr.write("\n" + " ".join(str(error).splitlines()) + "\n")
        sys.stderr.flush()
        os._exit(os.EX_CONFIG)  # nothing that the modules began says more


if __name__ == "__main__":
    main()
