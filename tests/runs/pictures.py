"""Pictures that installed packages carry, and what is in them."""

from __future__ import annotations

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
