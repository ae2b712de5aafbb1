"""The tutorial of the examples, copied to where a test may change it, and made quick."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.servers import ROOT

TUTORIAL = ROOT / "examples" / "tutorial"
COUNT = 4
#: What makes the two definitions quick.
QUICK = {
    '"configuration": {}': f'"configuration": {{"count": {COUNT}, "rate": 100}}',
    'mark="data_streamer")': f'mark="data_streamer", configuration={{"count": {COUNT}, "rate": 100}})',
    '{"delay": 2}': '{"delay": 0.05}',
}


class Tutorial:
    """A copy of ``examples/tutorial`` whose definitions can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(TUTORIAL, folder, ignore=shutil.ignore_patterns("pipe", "__pycache__"))

    def change(self, name: str, changes: dict[str, str]) -> Path:
        """Replace every text that is in the file; return the file."""
        path = self.folder / name
        text = path.read_text()
        for before, after in changes.items():
            text = text.replace(before, after)
        path.write_text(text)
        return path
