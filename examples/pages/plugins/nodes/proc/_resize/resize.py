"""``resize``: brings pictures to one size."""

from __future__ import annotations

from dataclasses import replace

import cv2

from celerypipe import Image, Message, Proc


class Resize(Proc):
    """Scales an :class:`Image` so that its longest side has a given length; its proportions stay.

    ``longest_side``: pixels. A smaller picture is enlarged: small print is read better so
    """

    def __init__(self, longest_side: int = 960) -> None:
        if longest_side < 1:
            raise ValueError(f"longest_side: {longest_side!r}; write a number of pixels, such as 960")
        self.longest_side = longest_side

    def update(self, message: Message) -> Message:
        """Return the scaled picture; ``meta`` notes its ``width`` and ``height``."""
        image = message.payload
        if not isinstance(image, Image):
            raise TypeError(f"resize takes an Image, not {type(image).__name__}; link it behind a source of pictures")
        factor = self.longest_side / max(image.image.shape[:2])
        height, width = (max(1, round(side * factor)) for side in image.image.shape[:2])
        way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        pixels = cv2.resize(image.image, (width, height), interpolation=way)
        return message.with_meta(width=width, height=height).with_payload(
            replace(image, image=pixels, width=width, height=height)
        )
