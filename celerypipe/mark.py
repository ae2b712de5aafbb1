"""What a mark looks like; alone, so that a worker knows it without the definition of pipelines."""

from __future__ import annotations

import re

#: A dotted path, or the short name of a built-in, an installed or a plugin node.
MARK = re.compile(r"[^\W\d][\w-]*(\.[^\W\d]\w*)*")
