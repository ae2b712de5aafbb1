"""Nodes for the queue ``gpu``: models, loaded once. Needs ``pip install 'celerypipe[vision]'``.

The models' packages are imported when a node is made ready, so a worker that serves others needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from billiard.process import current_process
from numpy.typing import NDArray

from celerypipe import ConfigError, Image, Message, Object, Proc

CUDA = "CUDAExecutionProvider"

#: The order of the channels that makes them BGR, which the model was trained on, by how the payload holds its pixels.
TO_BGR = {"RGB": (2, 1, 0), "RGBA": (2, 1, 0), "BGR": (0, 1, 2), "BGRA": (0, 1, 2), "GRAY": (0, 0, 0)}


class ReadText(Proc):
    """Reads printed text, Latin or Chinese, with the PP-OCRv6 models on ONNX Runtime.

    Takes an :class:`Image` (uint8). Sends ``Object(lines=[{"text", "confidence", "box"}, ...])``, top line first:
    ``confidence`` from 0 to 1; ``box`` four corners ``[x, y]`` in pixels of that image, clockwise from the text's top
    left. An empty list when there is nothing to read. Handwriting is beyond these models. Letters should be about
    20 pixels high: enlarge a smaller scan first.

    ``min_confidence``: less certain lines are left out, and so are lines without any letter or digit
    ``device``: ``"auto"`` (CUDA where ONNX Runtime offers it, else the processor), ``"cuda"`` or ``"cpu"``
    ``shortest_side``: pixels; a smaller image is enlarged for finding the lines (not for reading them)
    ``box_threshold``: from 0 to 1; how certain a box must be to be read at all
    ``box_growth``: how far a found box is widened before it is read; too little cuts letters off

    Source: PaddleOCR's PP-OCRv6, packed with its weights by RapidOCR, https://github.com/RapidAI/RapidOCR.
    """

    version = "2"

    def __init__(
        self,
        min_confidence: float = 0.7,
        device: str = "auto",
        shortest_side: int = 736,
        box_threshold: float = 0.5,
        box_growth: float = 1.6,
    ) -> None:
        if device not in ("auto", "cuda", "cpu"):
            raise ValueError(f"device: {device!r} is unknown; write 'auto', 'cuda' or 'cpu'")
        self.min_confidence = min_confidence
        self.device = device
        self.shortest_side = shortest_side
        self.box_threshold = box_threshold
        self.box_growth = box_growth

    def configure(self) -> None:
        """Choose the device; :class:`ConfigError` when it cannot be had, or not in this kind of process."""
        offered = CUDA in _required("onnxruntime").get_available_providers()
        if self.device == "cuda" and not offered:
            raise ConfigError(
                "device: this ONNX Runtime has no CUDA: pip uninstall onnxruntime, pip install onnxruntime-gpu, "
                'or write "device": "cpu"'
            )
        self.use_cuda = offered and self.device != "cpu"
        if self.use_cuda and current_process().name.startswith("ForkPoolWorker"):
            raise ConfigError(
                "device: CUDA does not survive the fork by which a prefork pool makes its processes; write "
                'worker_pool = "solo" in worker_configs/<queue>.toml (or start the worker with -P solo), '
                'or "device": "cpu"'
            )

    def warmup(self) -> None:
        """Load the three models and read one drawn word, so that the first message finds all memory in place."""
        if self.use_cuda:
            # Finds CUDA and cuDNN where pip put them; without it they must be on the system's library path.
            _required("onnxruntime").preload_dlls()
        self.reader = _required("rapidocr").RapidOCR(
            params={
                "Global.text_score": self.min_confidence,
                "Global.log_level": "error",  # a picture without text is no warning
                "Det.limit_side_len": self.shortest_side,
                "Det.box_thresh": self.box_threshold,
                "Det.unclip_ratio": self.box_growth,
                "EngineConfig.onnxruntime.use_cuda": self.use_cuda,
            }
        )
        self.reader(_drawn_word())  # which loads the models
        provider = self.reader.text_rec.session.session.get_providers()[0]
        if self.device == "cuda" and provider != CUDA:
            raise ConfigError(
                "device: ONNX Runtime could not start CUDA and fell back to the processor; look at the driver and at "
                'the versions of CUDA and cuDNN that this onnxruntime-gpu wants, or write "device": "auto"'
            )
        self.logger.info("reads text on %s", provider)

    def update(self, message: Message) -> Message:
        """Return the lines of text of one image."""
        with message.timeit("text"):
            found = self.reader(bgr_pixels(message.payload))
        if found.txts is None:
            return message.with_payload(Object(lines=[]))
        lines = [
            {
                "text": text.strip(),
                "confidence": float(confidence),
                "box": [[float(x), float(y)] for x, y in box],
            }
            for box, text, confidence in zip(found.boxes, found.txts, found.scores, strict=True)
            if any(letter.isalnum() for letter in text)
        ]
        return message.with_payload(Object(lines=lines))

    def destroy(self) -> None:
        """Drop the models, which frees the GPU's memory."""
        self.__dict__.pop("reader", None)


def bgr_pixels(payload: Any) -> NDArray[Any]:
    """Return an image's pixels as BGR, shape ``(height, width, 3)``; TypeError or ValueError for what is none."""
    if not isinstance(payload, Image):
        raise TypeError(f"ReadText takes an Image, not {type(payload).__name__}; put a node before it that makes one")
    pixels = payload.image
    if pixels.dtype != "uint8" or pixels.ndim not in (2, 3) or not pixels.size:
        raise ValueError(f"an image of shape {pixels.shape} and dtype {pixels.dtype}; ReadText takes pixels in uint8")
    depth = 1 if pixels.ndim == 2 else pixels.shape[2]
    form = payload.pixel_format.upper() or {1: "GRAY", 3: "RGB", 4: "RGBA"}.get(depth, "")
    if form not in TO_BGR or depth != (1 if form == "GRAY" else len(form)):
        raise ValueError(f"pixel_format {payload.pixel_format!r} with {depth} channels; use {', '.join(TO_BGR)}")
    channels = pixels.reshape(*pixels.shape[:2], depth)
    return np.ascontiguousarray(channels[:, :, TO_BGR[form]])


def _drawn_word() -> NDArray[Any]:
    drawing = import_module("PIL.ImageDraw")
    picture = import_module("PIL.Image").new("RGB", (256, 64), "white")
    drawing.Draw(picture).text((16, 12), "warm up", fill="black", font_size=36)
    return np.array(picture)


def _required(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"ReadText needs {module} ({error}): pip install 'celerypipe[vision]'") from error
