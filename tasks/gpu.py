"""Nodes for the queue ``gpu``: models, loaded once. Needs ``pip install 'celerypipe[vision]'`` and Python < 3.13."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import onnxruntime
from billiard.process import current_process
from numpy.typing import NDArray
from rapidocr_onnxruntime import RapidOCR

from celerypipe import ConfigError, Image, Message, Object, Proc

CUDA = "CUDAExecutionProvider"

#: OpenCV's conversion to BGR, which the model was trained on, by how the payload holds its pixels.
TO_BGR = {
    "RGB": cv2.COLOR_RGB2BGR,
    "RGBA": cv2.COLOR_RGBA2BGR,
    "BGR": None,
    "BGRA": cv2.COLOR_BGRA2BGR,
    "GRAY": cv2.COLOR_GRAY2BGR,
}


class ReadText(Proc):
    """Reads printed text, Latin or Chinese, with the PP-OCRv4 models on ONNX Runtime.

    Takes an :class:`Image` (uint8). Sends ``Object(lines=[{"text", "confidence", "box"}, ...])``, top line first:
    ``confidence`` from 0 to 1; ``box`` four corners ``[x, y]`` in pixels of that image, clockwise from the text's top
    left. An empty list when there is nothing to read. Handwriting is beyond these models. Letters should be about
    20 pixels high: enlarge a smaller scan first.

    ``min_confidence``: less certain lines are left out, and so are lines without any letter or digit
    ``device``: ``"auto"`` (CUDA where ONNX Runtime offers it, else the processor), ``"cuda"`` or ``"cpu"``
    ``shortest_side``: pixels; a smaller image is enlarged for finding the lines (not for reading them)
    ``box_threshold``: from 0 to 1; how certain a box must be to be read at all
    ``box_growth``: how far a found box is widened before it is read; too little cuts letters off

    Source: PaddleOCR's PP-OCRv4, packed with its weights by RapidOCR, https://github.com/RapidAI/RapidOCR.
    """

    version = "1"

    def __init__(
        self,
        min_confidence: float = 0.7,
        device: str = "auto",
        shortest_side: int = 480,
        box_threshold: float = 0.3,
        box_growth: float = 2.0,
    ) -> None:
        if device not in ("auto", "cuda", "cpu"):
            raise ValueError(f"device: {device!r} is unknown; write 'auto', 'cuda' or 'cpu'")
        self.min_confidence = min_confidence
        self.device = device
        self.shortest_side = shortest_side
        self.box_threshold = box_threshold
        self.box_growth = box_growth
        #: Where the models run, known after :meth:`warmup`: ``"CUDAExecutionProvider"`` or ``"CPUExecutionProvider"``.
        self.provider = ""

    def configure(self) -> None:
        """Choose the device; :class:`ConfigError` when it cannot be had, or not in this kind of process."""
        offered = CUDA in onnxruntime.get_available_providers()
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
            onnxruntime.preload_dlls()
        self.reader = RapidOCR(
            text_score=self.min_confidence,
            det_use_cuda=self.use_cuda,
            cls_use_cuda=self.use_cuda,
            rec_use_cuda=self.use_cuda,
            det_limit_side_len=self.shortest_side,
            det_box_thresh=self.box_threshold,
            det_unclip_ratio=self.box_growth,
        )
        self.provider = self.reader.text_rec.session.session.get_providers()[0]
        if self.device == "cuda" and self.provider != CUDA:
            raise ConfigError(
                "device: ONNX Runtime could not start CUDA and fell back to the processor; look at the driver and at "
                'the versions of CUDA and cuDNN that this onnxruntime-gpu wants, or write "device": "auto"'
            )
        self.logger.info("reads text on %s", self.provider)
        word = np.full((64, 256, 3), 255, np.uint8)
        self.reader(cv2.putText(word, "warm up", (16, 44), cv2.FONT_HERSHEY_SIMPLEX, 1.4, (0, 0, 0), 2))

    def update(self, message: Message) -> Message:
        """Return the lines of text of one image."""
        with message.timeit("text"):
            found, _ = self.reader(bgr_pixels(message.payload))
        lines = [
            {
                "text": text.strip(),
                "confidence": float(confidence),
                "box": [[float(x), float(y)] for x, y in box],
            }
            for box, text, confidence in found or ()
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
    conversion = TO_BGR[form]
    return np.ascontiguousarray(pixels) if conversion is None else cv2.cvtColor(pixels, conversion)
