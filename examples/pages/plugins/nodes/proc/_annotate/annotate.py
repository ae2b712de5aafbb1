"""``annotate``: draws on a picture what was found in it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from celerypipe import Batch, Image, Message, Object, Proc

FACE_COLOR = (230, 30, 60)
LINE_COLOR = (0, 110, 230)
PAPER = (255, 255, 255)
INK = (20, 20, 20)
MARGIN = 10


class Annotate(Proc):
    """Draws faces and lines of text on the picture, and writes the text below it, numbered.

    Takes a picture and its record, joined (``"sync": "key:image"``). Sends an :class:`Image` (RGB).

    ``font_size``: pixels
    ``stroke``: width of the boxes' lines, pixels
    """

    def __init__(self, font_size: int = 18, stroke: int = 2) -> None:
        self.font_size = font_size
        self.stroke = stroke
        #: Width of the empty strip on the left, for the numbers, pixels.
        self.left = 2 * font_size

    def warmup(self) -> None:
        """Load the font that Pillow carries."""
        self.font = ImageFont.load_default(self.font_size)

    def update(self, message: Message) -> Message:
        """Return the picture with its boxes."""
        image, record = picture_and_record(message.payload)
        captions = [f"{count(record['faces'], 'face')}, {count(record['lines'], 'line')} of text"] + [
            f"{number}   {line['text']}   ({line['confidence']:.2f})" for number, line in enumerate(record["lines"], 1)
        ]
        row = round(self.font_size * 1.4)
        size = (self.left + image.width, image.height + row * len(captions) + 2 * MARGIN)
        sheet = Picture.new("RGB", size, PAPER)
        sheet.paste(Picture.fromarray(image.image), (self.left, 0))
        pen = ImageDraw.Draw(sheet)
        for face in record["faces"]:
            self._face(pen, face)
        for number, line in enumerate(record["lines"], 1):
            self._line(pen, number, line)
        for position, caption in enumerate(captions):
            pen.text((self.left, image.height + MARGIN + row * position), caption, INK, self.font)
        pixels = np.asarray(sheet)
        return message.with_payload(Image(pixels, sheet.width, sheet.height, 3, "RGB", image.timestamp))

    def _face(self, pen: ImageDraw.ImageDraw, face: dict[str, int]) -> None:
        """Draw a box with a word above it, inside the picture."""
        x, y = self.left + face["x"], face["y"]
        pen.rectangle((x, y, x + face["width"], y + face["height"]), outline=FACE_COLOR, width=self.stroke)
        self._tag(pen, x, max(0, y - self.font_size - 2), "face", FACE_COLOR)

    def _line(self, pen: ImageDraw.ImageDraw, number: int, line: dict[str, Any]) -> None:
        """Draw a box with its number to the left of it, where it covers no letter."""
        corners = [(self.left + x, y) for x, y in line["box"]]
        pen.polygon(corners, outline=LINE_COLOR, width=self.stroke)
        x, y = min(corners)
        self._tag(pen, x - 8 - pen.textlength(str(number), self.font), y - self.font_size, str(number), LINE_COLOR)

    def _tag(self, pen: ImageDraw.ImageDraw, x: float, y: float, text: str, color: tuple[int, int, int]) -> None:
        """Write a word in a filled box whose top left corner is given."""
        width = pen.textlength(text, self.font) + 8
        height = self.font_size + 2
        pen.rectangle((x, y, x + width, y + height), fill=color)
        pen.text((x + 4, y + height / 2), text, PAPER, self.font, anchor="lm")


def picture_and_record(payload: Any) -> tuple[Image, Object]:
    """Take the two out of what a join handed over, in whichever order; TypeError when one of them is missing."""
    parts = [part.payload for part in payload.messages] if isinstance(payload, Batch) else [payload]
    image = next((part for part in parts if isinstance(part, Image)), None)
    record = next((part for part in parts if isinstance(part, Object)), None)
    if image is None or record is None:
        raise TypeError(
            'annotate takes a picture and its record, joined; link both to it and write "sync": "key:image"'
        )
    return image, record


def count(things: list[Any], name: str) -> str:
    """Return ``no line``, ``1 line``, ``2 lines``."""
    return f"{len(things) or 'no'} {name}{'s' if len(things) > 1 else ''}"
