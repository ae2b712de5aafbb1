"""Pictures that installed packages carry, and what is in them."""

from __future__ import annotations

import importlib.util
import os

import pytest

from tests.servers import ROOT

#: Where the face is, by eye: x, y, width, height in pixels of the file.
PORTRAITS = {
    "skimage/data/astronaut.png": (180, 65, 90, 110),
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg": (160, 120, 215, 220),
}
PAGES = ("skimage/data/page.png", "skimage/data/text.png")

#: The first lines of the first page.
PROSE = [
    "Region-based segmentation",
    "Let us first determine markers of the coins and the",
    "background. These markers are pixels that we can label",
    "unambiguously as either object or background. Here,",
    "the markers are found at the two extreme parts of the",
    "histogram of grey values:",
]
#: The example that reads them, and what it needs.
EXAMPLE = ROOT / "examples" / "pages"
NEEDED = ("rapidocr", "onnxruntime", "cv2", "PIL", "skimage", "matplotlib")


def require_vision() -> None:
    """Skip where the model is not installed; a failure under CI."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)} (pip install -e '.[vision]')"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
