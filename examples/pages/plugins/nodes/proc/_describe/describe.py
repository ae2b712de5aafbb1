"""``describe``: what was found in one picture, as one record."""

from __future__ import annotations

from celerypipe import Batch, Message, Object, Proc


class Describe(Proc):
    """Joins what several nodes found in one picture (``"sync": "key:image"``) to one Object.

    Sends ``Object(image, width, height, **everything found)``, sizes in pixels of the picture that was looked at.

    ``key``: the entry of ``meta`` that names the picture
    ``digits``: decimals that are kept of every float; two machines may differ in the last ones
    """

    def __init__(self, key: str = "image", digits: int = 2) -> None:
        self.key = key
        self.digits = digits

    def update(self, message: Message) -> Message:
        """Return the record of one picture."""
        if not isinstance(message.payload, Batch):
            raise TypeError('describe takes what was found in one picture, joined; write "sync": "key:image"')
        found = {key: value for part in message.payload.messages for key, value in part.payload.items()}
        about = {"image": message.meta[self.key], "width": message.meta["width"], "height": message.meta["height"]}
        return message.with_payload(Object(**about, **{key: self._rounded(value) for key, value in found.items()}))

    def _rounded(self, value: object) -> object:
        match value:
            case float():
                return round(value, self.digits)
            case dict():
                return {key: self._rounded(item) for key, item in value.items()}
            case list() | tuple():
                return [self._rounded(item) for item in value]
        return value
