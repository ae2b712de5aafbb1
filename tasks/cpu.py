"""Nodes for the queue ``cpu``: they compute, one process each. Needs ``pip install 'celerypipe[vision]'``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import cv2.data
from numpy.typing import NDArray

from celerypipe import ConfigError, Image, Message, Object, Proc, did_you_mean

#: OpenCV's conversion to grey, by how the payload holds its pixels.
TO_GRAY = {
    "RGB": cv2.COLOR_RGB2GRAY,
    "RGBA": cv2.COLOR_RGBA2GRAY,
    "BGR": cv2.COLOR_BGR2GRAY,
    "BGRA": cv2.COLOR_BGRA2GRAY,
    "GRAY": None,
}


class DetectFaces(Proc):
    """Finds faces that look at the camera, by one of the Haar cascades that OpenCV 4 carries.

    Takes an :class:`Image` (uint8). Sends ``Object(faces=[{"x", "y", "width", "height"}, ...])``, pixels of that
    image, the largest face first; an empty list when there is none.

    ``cascade``: the name of a file in ``cv2.data.haarcascades``, without ``.xml``
    ``scale_factor``: step between the sizes that are tried, above 1; nearer to 1 finds more and takes longer
    ``min_neighbors``: overlapping hits that make a face; more of them: fewer false faces, more missed ones
    ``min_size``: pixels; smaller faces are not looked for
    ``equalize``: spread the greys over the whole range first; helps in dark or flat pictures

    Source: Viola and Jones, Rapid Object Detection using a Boosted Cascade of Simple Features, 2001.
    """

    version = "1"

    def __init__(
        self,
        cascade: str = "haarcascade_frontalface_alt2",
        scale_factor: float = 1.1,
        min_neighbors: int = 8,
        min_size: int = 40,
        equalize: bool = True,
    ) -> None:
        if scale_factor <= 1:
            raise ValueError(f"scale_factor: {scale_factor!r} would never end; write a number above 1, such as 1.1")
        if min_neighbors < 0 or min_size < 1:
            raise ValueError(f"min_neighbors: {min_neighbors!r}, min_size: {min_size!r}; write at least 0 and 1")
        self.cascade = cascade
        self.scale_factor = scale_factor
        self.min_neighbors = min_neighbors
        self.min_size = min_size
        self.equalize = equalize

    def warmup(self) -> None:
        """Read the cascade; :class:`ConfigError` when there is none of that name."""
        if not hasattr(cv2, "CascadeClassifier"):
            raise ConfigError(
                f"OpenCV {cv2.__version__} has no cascades any more: pip install 'opencv-python>=4.10,<5'"
            )
        known = {path.stem: path for path in Path(cv2.data.haarcascades).glob("*.xml")}
        if self.cascade not in known:
            raise ConfigError(
                f"cascade: OpenCV {cv2.__version__} carries no {self.cascade!r}{did_you_mean(self.cascade, known)}"
            )
        self.classifier = cv2.CascadeClassifier(str(known[self.cascade]))

    def update(self, message: Message) -> Message:
        """Return the faces of one image."""
        with message.timeit("faces"):
            gray = gray_pixels(message.payload)
            if self.equalize:
                gray = cv2.equalizeHist(gray)
            found = self.classifier.detectMultiScale(
                gray, self.scale_factor, self.min_neighbors, minSize=(self.min_size, self.min_size)
            )
        boxes = sorted((tuple(int(number) for number in box) for box in found), key=lambda box: (-box[2] * box[3], box))
        return message.with_payload(
            Object(faces=[{"x": x, "y": y, "width": width, "height": height} for x, y, width, height in boxes])
        )


def gray_pixels(payload: Any) -> NDArray[Any]:
    """Return an image's pixels in grey, shape ``(height, width)``; TypeError or ValueError for what is none."""
    if not isinstance(payload, Image):
        raise TypeError(
            f"DetectFaces takes an Image, not {type(payload).__name__}; put a node before it that makes one"
        )
    pixels = payload.image
    if pixels.dtype != "uint8" or pixels.ndim not in (2, 3) or not pixels.size:
        raise ValueError(
            f"an image of shape {pixels.shape} and dtype {pixels.dtype}; DetectFaces takes pixels in uint8"
        )
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return pixels.reshape(pixels.shape[:2])
    form = payload.pixel_format.upper() or {3: "RGB", 4: "RGBA"}.get(pixels.shape[2], "")
    conversion = TO_GRAY.get(form)
    if conversion is None or pixels.shape[2] != len(form):
        raise ValueError(
            f"pixel_format {payload.pixel_format!r} with {pixels.shape[2]} channels; use {', '.join(TO_GRAY)}"
        )
    return cv2.cvtColor(pixels, conversion)
