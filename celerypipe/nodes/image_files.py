"""``image_files``: a source that reads, and a sink that writes, pictures as files."""

from __future__ import annotations

import io
from collections.abc import Container, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from celerypipe.contract.contract import Sink, Source
from celerypipe.contract.positions import Position
from celerypipe.contract.readings import Readings
from celerypipe.message.message import Message
from celerypipe.message.payload import Image
from celerypipe.nodes.parts.naming import Naming, write_whole
from celerypipe.nodes.parts.selection import Selection

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageOps
try:
    import PIL
except ImportError as error:
    raise ImportError(f"image_files needs Pillow ({error}): pip install 'celerypipe[images]'", name="PIL") from error

#: What is taken from a folder when no pattern says otherwise.
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

#: What the letters of a pixel format become for Pillow, which knows no BGR: the order of the channels.
ORDERS = {"RGB": (0, 1, 2), "RGBA": (0, 1, 2, 3), "BGR": (2, 1, 0), "BGRA": (2, 1, 0, 3), "GRAY": ()}

#: How well JPEG and WebP keep a picture, from 1 to 100.
QUALITY = 95


class ImageFilesSource(Source):
    """Reads pictures and sends each as an :class:`Image` (RGB, uint8), turned upright as its EXIF data say.

    ``meta``: ``name`` (the file's name without its suffix), ``path``, and ``page``: each page of a TIFF is a message,
    the first is page 1, as is any other picture. ``version`` counts files from 0. A file that is no picture, or cannot
    be read, is an error that names it: ``on_error`` of the node decides, and with ``skip`` the others are sent. A run
    of it can be resumed: files are known by their paths, so that some may come or go meanwhile.

    ``paths``: the files, in this order
    ``folder``: instead of ``paths``: a folder, its pictures sorted by name; hidden files (``.a``, ``._a``) are left out
    ``pattern``: which files of the folder, such as ``"*.png"`` or ``"**/*.jpg"``; default: those with a suffix that
    pictures have (bmp, jpeg, jpg, png, ppm, tif, tiff, webp)
    """

    def __init__(self, paths: list[str] | None = None, folder: str | None = None, pattern: str | None = None) -> None:
        self.files = Selection(paths, folder, pattern, what="picture", suffixes=SUFFIXES)

    def configure(self) -> None:
        """Find the files; :class:`ConfigError` names those that are missing."""
        self.files.find(self.reach)

    def position(self, message: Message) -> str:
        """Return the path of the file, and from the second page on its number."""
        return self._position(message.version, message.meta.get("page", 1))

    def seek(self, through: Container[Position]) -> None:
        """Leave out these files and pages."""
        self.files.seek(through)

    def total(self) -> int:
        """Return the number of files, without those that are left out; nobody looks how many pages they have."""
        return self.files.total()

    def messages(self) -> Iterator[Message]:
        """Yield one message a picture."""
        return Readings(self.message, self._wanted())

    def message(self, wanted: tuple[int, int]) -> Message:
        """Read a file's page; OSError when it cannot be read, ValueError when it is no picture, both naming it."""
        index, page = wanted
        path = self.files.paths[index]
        return Message(read_image(path, page), meta={"name": path.stem, "path": str(path), "page": page}, version=index)

    def stop(self) -> None:
        """Read no further file."""
        self.files.stop()

    def _wanted(self) -> Iterator[tuple[int, int]]:
        for index in range(len(self.files.names)):
            if self.files.stopped:
                return
            for page in range(1, pages_of(self.files.paths[index]) + 1):
                if not self.files.left_out(self._position(index, page)):
                    yield index, page

    def _position(self, index: int, page: int) -> str:
        return self.files.names[index] if page == 1 else f"{self.files.names[index]}\0page {page}"


class ImageFilesSink(Sink):
    """Writes each :class:`Image` to a file of its own, which appears whole or not at all.

    A file of that name that was there before is replaced; one that this run wrote is not: the second message fails.
    Takes uint8, and uint16 where it is GRAY and the file format takes it; RGB, RGBA, BGR, BGRA or GRAY, and without
    ``pixel_format`` by the number of channels: 1 GRAY, 3 RGB, 4 RGBA.

    ``folder``: where to; a relative one starts at the current folder; missing folders are made. Default: the node's
    own folder in the pipeline's folder
    ``pattern``: the file's name, as for ``str.format``: fields are the entries of ``meta``, and ``id``, ``origin``,
    ``sequence`` and ``version``. Its suffix decides the file format. In texts from a message only letters, digits,
    ``_``, ``-`` and ``.`` are kept, others become ``_``: no message can name a file outside the folder
    """

    tell_apart = "write a 'pattern' that tells them apart, such as '{sequence}-{name}.png'"

    def __init__(self, folder: str | None = None, pattern: str = "{name}.png") -> None:
        self.naming = Naming("image_files", folder, pattern)
        self.suffix = Path(pattern).suffix.lower()
        if not self.suffix.isascii() or "{" in self.suffix or self.suffix not in written_suffixes():
            raise ValueError(f"pattern: {pattern!r} has no suffix of a picture; write '{{name}}.png' or '{{name}}.jpg'")

    def configure(self) -> None:
        """Settle where to; :class:`ConfigError` when nobody says it."""
        self.naming.settle(self.folder, self.reach)

    def warmup(self) -> None:
        """Make the folder; :class:`ConfigError` when that cannot be done."""
        self.naming.make()

    def update(self, message: Message) -> None:
        """Write the picture; TypeError for another payload, LookupError when ``meta`` lacks an entry of ``pattern``."""
        content = encoded(message.payload, self.suffix)
        write_whole(self.naming.target(message, self.reach), content, message)

    def place(self, message: Message) -> str:
        """Return the file that the message goes to."""
        return self.naming.place(message)


def written_suffixes() -> set[str]:
    """The suffixes of the file formats that can be written."""
    _load_pillow()
    PIL.Image.init()
    return {suffix for suffix, form in PIL.Image.EXTENSION.items() if form in PIL.Image.SAVE}


def _load_pillow() -> None:
    """Import what reads and writes: it is long, and each worker has this module."""
    import_module("PIL.ImageOps")


def pages_of(path: Path) -> int:
    """Return how many pages a TIFF has, one that cannot be read as the last; 1 for any other file."""
    pages = 0
    if path.suffix.lower() not in (".tif", ".tiff"):
        return 1
    _load_pillow()
    try:
        with PIL.Image.open(path) as picture:
            while True:
                picture.seek(pages)
                pages += 1
    except EOFError:
        return pages
    except Exception:  # noqa: BLE001  # decoders of broken files raise anything; whoever reads it says what is wrong
        return pages + 1


def read_image(path: Path, page: int = 1) -> Image:
    """Read one picture; OSError when it cannot be read, ValueError when it is no picture, both naming it."""
    _load_pillow()
    content = path.read_bytes()
    try:
        with PIL.Image.open(io.BytesIO(content)) as picture:
            picture.seek(page - 1)
            pixels = _rgb(PIL.ImageOps.exif_transpose(picture))
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"{path}: no picture that Pillow can read") from error
    except Exception as error:  # the decoders of broken files raise whatever they run into
        where = "" if page == 1 else f" (page {page})"
        raise ValueError(f"{path}{where}: no picture that Pillow can read ({error})") from error
    height, width, depth = pixels.shape
    return Image(pixels, width, height, depth, "RGB")


def _rgb(picture: PIL.Image.Image) -> NDArray[Any]:
    """Return its pixels as RGB of 8 bits; of 16 bits the higher ones are kept, and what is see-through is not."""
    if picture.mode.startswith("I"):
        deep = np.asarray(picture).astype(np.int64).clip(0, 0xFFFF) >> 8
        return np.repeat(deep.astype(np.uint8)[:, :, None], 3, axis=2)
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers: convert it to 8 or 16 bits first")
    return np.array(picture.convert("RGB"))


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
    if form not in ORDERS or depth != max(1, len(ORDERS[form])):
        raise ValueError(f"pixel_format {payload.pixel_format!r} with {depth} channels; use {', '.join(ORDERS)}")
    pixels = pixels.reshape(pixels.shape[:2]) if form == "GRAY" else pixels[:, :, ORDERS[form]]
    return _file_content(np.ascontiguousarray(pixels), suffix)


def _file_content(pixels: NDArray[Any], suffix: str) -> bytes:
    content = io.BytesIO()
    try:
        picture = PIL.Image.fromarray(pixels)
        picture.save(content, format=PIL.Image.EXTENSION[suffix], quality=QUALITY)
    except (TypeError, ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"Pillow cannot write {pixels.dtype} of shape {pixels.shape} as {suffix} ({error}); try .png, or convert "
            "it in a node before"
        ) from error
    return content.getvalue()
