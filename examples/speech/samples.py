"""Prints the folder of the recordings that the package moonshine-voice brings along; it is not imported."""

import importlib.metadata
import sys

try:
    files = importlib.metadata.files("moonshine-voice") or []
except importlib.metadata.PackageNotFoundError:
    sys.exit("no recordings to try: pip install 'celerypipe[demo]', or name a folder of yours")
print(next(file.locate().parent for file in files if file.suffix == ".wav"))
