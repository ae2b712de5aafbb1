"""``sample_pages``: pictures that installed packages carry."""

from __future__ import annotations

import importlib.util
from pathlib import Path, PurePosixPath

from celerypipe import ConfigError, Message, Reach
from celerypipe.nodes import image_files


class SamplePages(image_files.ImageFilesSource):
    """Sends pictures out of installed packages, as ``image_files`` does; ``meta["image"]`` is the picture's name.

    ``pictures``: files inside of packages, such as ``"skimage/data/page.png"``
    """

    def __init__(self, pictures: list[str]) -> None:
        super().__init__(paths=[])
        self.pictures = pictures

    def configure(self) -> None:
        """Find the files; :class:`ConfigError` names the package or the file that is missing."""
        self.paths = [inside_package(picture) for picture in self.pictures]
        # Packages are installed by the user of this machine: their pictures are within reach, and nothing beside them.
        packages = [package_folder(picture) for picture in self.pictures]
        self.reach = Reach.of(packages, "name a file inside the package")
        super().configure()

    def message(self, index: int) -> Message:
        """Read a picture, and name it."""
        message = super().message(index)
        return message.with_meta(image=message.meta["name"])


def inside_package(picture: str) -> Path:
    """Return the path of a file inside a package, without importing the package."""
    return Path(package_folder(picture), *PurePosixPath(picture).parts[1:])


def package_folder(picture: str) -> Path:
    """Return where a picture's package is installed; :class:`ConfigError` when it is not."""
    package = (PurePosixPath(picture).parts or ("",))[0]
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"pictures: {picture!r}: no package {package!r} here: pip install 'celerypipe[vision]'")
    return Path(spec.submodule_search_locations[0])
