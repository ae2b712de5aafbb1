"""``image_files``: a source that reads, and a sink that writes, pictures as files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from celerypipe.contract.contract import Sink, Source
from celerypipe.contract.positions import Position, Positions
from celerypipe.contract.readings import Readings
from celerypipe.errors import ConfigError
from celerypipe.folders import path_of
from celerypipe.message.message import Message
from celerypipe.message.payload import Image
from celerypipe.nodes.parts.arguments import placeholders

try:
    import cv2
except ImportError as error:
    raise ImportError(f"image_files needs OpenCV ({error}): pip install 'celerypipe[vision]'", name="cv2") from error

#: What is taken from a folder when no pattern says otherwise.
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

#: How OpenCV must see the pixels, by how the payload holds them.
TO_OPENCV = {"RGB": cv2.COLOR_RGB2BGR, "RGBA": cv2.COLOR_RGBA2BGRA, "BGR": None, "BGRA": None, "GRAY": None}


class ImageFilesSource(Source):
    """Reads pictures and sends each as an :class:`Image` (RGB, uint8), turned upright as its EXIF data say.

    ``meta``: ``name`` (the file's name without its suffix) and ``path``; ``version`` counts from 0. A file that is
    no picture, or cannot be read, is an error that names it: ``on_error`` of the node decides, and with ``skip`` the
    others are sent. A run of it can be resumed: files are known by their paths, so that some may come or go meanwhile.

    ``paths``: the files, in this order
    ``folder``: instead of ``paths``: a folder, its pictures sorted by name
    ``pattern``: which files of the folder, such as ``"*.png"`` or ``"**/*.jpg"``; default: those with a suffix that
    pictures have (bmp, jpeg, jpg, png, ppm, tif, tiff, webp)
    """

    def __init__(self, paths: list[str] | None = None, folder: str | None = None, pattern: str | None = None) -> None:
        if (paths is None) == (folder is None):
            raise ValueError("paths and folder: give one of them")
        if isinstance(paths, str):
            raise TypeError(f"paths: {paths!r} is one text; write a list of paths")
        if pattern is not None and folder is None:
            raise ValueError("pattern: goes with 'folder', not with 'paths'")
        self.paths = [path_of(path) for path in paths or ()]
        self.source_folder = None if folder is None else path_of(folder)
        self.pattern = pattern
        self._names: list[str] = []
        self._through: Container[Position] = Positions()
        self._stopped = False

    def configure(self) -> None:
        """Find the files; :class:`ConfigError` names those that are missing."""
        if self.source_folder is not None:
            self.paths = self._found(self.source_folder)
        for path in self.paths:
            self.reach.require(path)
        if missing := [str(path) for path in self.paths if not path.is_file()]:
            raise ConfigError(f"no such file: {', '.join(missing)} (from {Path.cwd()}); correct 'paths'")
        self._names = _apart(self.paths)

    def position(self, message: Message) -> str:
        """Return the path of the file."""
        return self._names[message.version]

    def seek(self, through: Container[Position]) -> None:
        """Leave out these files."""
        self._through = through

    def total(self) -> int:
        """Return the number of files, without those that are left out."""
        return sum(name not in self._through for name in self._names)

    def messages(self) -> Iterator[Message]:
        """Yield one message a picture."""
        return Readings(self.message, self._wanted())

    def _wanted(self) -> Iterator[int]:
        for index, name in enumerate(self._names):
            if self._stopped:
                return
            if name not in self._through:
                yield index

    def message(self, index: int) -> Message:
        """Read a picture; OSError when it cannot be read, ValueError when it is no picture, both naming it."""
        path = self.paths[index]
        return Message(read_image(path), meta={"name": path.stem, "path": str(path)}, version=index)

    def stop(self) -> None:
        """Read no further file."""
        self._stopped = True

    def _found(self, folder: Path) -> list[Path]:
        self.reach.require(folder)
        if not folder.is_dir():
            raise ConfigError(f"no such folder: {folder} (from {Path.cwd()}); correct 'folder'")
        paths = sorted(path for path in folder.glob(self.pattern or "*") if path.is_file())
        if self.pattern is None:
            paths = [path for path in paths if path.suffix.lower() in SUFFIXES]
        if not paths:
            wanted = f"that matches {self.pattern!r}" if self.pattern else "with a picture's suffix (.png, .jpg, …)"
            raise ConfigError(f"{folder}: no file {wanted}")
        return paths


class ImageFilesSink(Sink):
    """Writes each :class:`Image` to a file of its own, which appears whole or not at all.

    A file of that name that was there before is replaced; one that this run wrote is not: the second message fails.
    Takes uint8, and uint16 where the file format does; RGB, RGBA, BGR, BGRA or GRAY, and without ``pixel_format``
    by the number of channels: 1 GRAY, 3 RGB, 4 RGBA.

    ``folder``: where to; a relative one starts at the current folder; missing folders are made. Default: the node's
    own folder in the pipeline's folder
    ``pattern``: the file's name, as for ``str.format``: fields are the entries of ``meta``, and ``id``, ``origin``,
    ``sequence`` and ``version``. Its suffix decides the file format. In texts from a message only letters, digits,
    ``_``, ``-`` and ``.`` are kept, others become ``_``: no message can name a file outside the folder
    """

    tell_apart = "write a 'pattern' that tells them apart, such as '{sequence}-{name}.png'"

    def __init__(self, folder: str | None = None, pattern: str = "{name}.png") -> None:
        self.target_folder = None if folder is None else path_of(folder)
        self.pattern = pattern
        self.suffix = Path(pattern).suffix
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise ValueError(f"pattern: {pattern!r} leads out of the folder; write a name such as '{{name}}.png'")
        if not self.suffix.isascii() or "{" in self.suffix or not cv2.haveImageWriter(f"x{self.suffix}"):
            raise ValueError(f"pattern: {pattern!r} has no suffix of a picture; write '{{name}}.png' or '{{name}}.jpg'")
        self.fields = _fields(pattern)

    def configure(self) -> None:
        """Settle where to; :class:`ConfigError` when nobody says it."""
        self.target_folder = self.target_folder or self.folder
        if self.target_folder is None:
            raise ConfigError("image_files: give 'folder', or give the pipeline one")
        self.reach.require(self.target_folder)

    def warmup(self) -> None:
        """Make the folder; :class:`ConfigError` when that cannot be done."""
        folder = self._settled()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be made: {error.strerror}; correct 'folder'") from error

    def update(self, message: Message) -> None:
        """Write the picture; TypeError for another payload, LookupError when ``meta`` lacks an entry of ``pattern``."""
        target = self._settled() / self._name_for(message)
        self.reach.require(target.parent)  # a link below the folder may lead out of it
        content = encoded(message.payload, self.suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{os.getpid()}-{_safe(message.id)}.part")
        try:
            draft.write_bytes(content)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    def place(self, message: Message) -> str:
        """Return the file that the message goes to."""
        return str((self.target_folder or Path()) / self._name_for(message))

    def _name_for(self, message: Message) -> str:
        known = {
            **message.meta,
            "id": message.id,
            "origin": message.origin,
            "sequence": message.sequence,
            "version": message.version,
        }
        if missing := sorted(self.fields - known.keys()):
            had = ", ".join(map(repr, message.meta)) or "nothing"
            raise LookupError(f"pattern: {self.pattern!r} asks for {missing[0]!r}; this message's meta has {had}")
        return self.pattern.format(**{field: _safe(known[field]) for field in self.fields})

    def _settled(self) -> Path:
        if self.target_folder is None:
            raise RuntimeError("image_files: no folder yet; call configure() first")
        return self.target_folder


def _apart(paths: Sequence[Path]) -> list[str]:
    """Return the paths as texts, one that is there several times with a number, behind what no path has."""
    seen: Counter[str] = Counter()
    names = []
    for path in map(str, paths):
        seen[path] += 1
        names.append(path if seen[path] == 1 else f"{path}\0{seen[path]}")
    return names


def read_image(path: Path) -> Image:
    """Read one picture; OSError when it cannot be read, ValueError when it is no picture, both naming it."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        pixels = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error as error:
        raise ValueError(f"{path}: OpenCV cannot decode it: {error}") from error
    if pixels is None:
        raise ValueError(f'{path}: no picture that OpenCV can decode; remove it, or skip it with "on_error": "skip"')
    height, width, depth = pixels.shape
    return Image(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), width, height, depth, "RGB")


def encoded(payload: Any, suffix: str) -> bytes:
    """Return an :class:`Image` as the content of a file with that suffix; TypeError or ValueError when it cannot be."""
    if not isinstance(payload, Image):
        raise TypeError(f"image_files writes an Image, not {type(payload).__name__}; convert it in a node before")
    pixels = payload.image
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3) or not pixels.size:
        raise TypeError(
            f"an image of shape {pixels.shape} and dtype {pixels.dtype} cannot be written; "
            f"it takes uint8 of shape (height, width) or (height, width, 1, 3 or 4)"
        )
    depth = 1 if pixels.ndim == 2 else pixels.shape[2]
    form = payload.pixel_format.upper() or {1: "GRAY", 3: "RGB", 4: "RGBA"}.get(depth, "")
    if form not in TO_OPENCV or depth != {"GRAY": 1}.get(form, len(form)):
        raise ValueError(f"pixel_format {payload.pixel_format!r} with {depth} channels; use {', '.join(TO_OPENCV)}")
    conversion = TO_OPENCV[form]
    pixels = np.ascontiguousarray(pixels)
    return _file_content(pixels if conversion is None else cv2.cvtColor(pixels, conversion), suffix)


def _file_content(pixels: NDArray[Any], suffix: str) -> bytes:
    try:
        done, content = cv2.imencode(suffix, pixels)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot write this image as {suffix}: {error}") from error
    if not done:
        raise ValueError(f"OpenCV cannot write {pixels.dtype} of shape {pixels.shape} as {suffix}; try .png")
    return bytes(content)


def _fields(pattern: str) -> set[str]:
    """Return the names of the fields in a pattern; ValueError unless they are plain names."""
    names = placeholders("pattern", pattern)
    if odd := sorted(name for name in names if not name.isidentifier()):
        raise ValueError(f"pattern: {pattern!r} has the field {odd[0]!r}; write the name of an entry of meta")
    return names


def _safe(value: Any) -> Any:
    """Return a number as it is (for ``{sequence:04d}``), anything else as a text that is one part of a file name."""
    if isinstance(value, int | float):
        return value
    text = re.sub(r"[^\w.-]", "_", str(value))[:150]
    return re.sub(r"^\.+", lambda dots: "_" * len(dots.group()), text) or "_"
