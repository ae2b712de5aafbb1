"""The examples that a project can begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Example:
    """What a project begins with: its files are in ``templates/<name>/``, beside those in ``templates/common/``.

    ``about``: what its pipeline does; ``queue``: whose worker runs a node of it; ``extras`` of celerypipe and other
    ``packages`` are what it needs; ``changes``: what is written in the place of words of the example in the checkout.
    """

    about: str
    queue: str
    extras: tuple[str, ...]
    packages: tuple[str, ...] = ()
    changes: Mapping[str, str] = field(default_factory=dict)


EXAMPLES = {
    "speech": Example(
        "Writes down what is said in recordings, as subtitles.",
        "gpu",
        ("embedded", "speech", "demo"),
        changes={
            "examples/speech/out": "out",
            '"mark": "audio_file"': '"mark": "tasks.recordings.Recordings"',
            '["tasks.gpu", "tasks.speech"]': '["tasks.speech"]',
        },
    ),
    "pages": Example(
        "Reads the text of photographs, and finds faces.",
        "gpu",
        ("embedded", "vision"),
        changes={"examples/pages/out": "out", '["tasks.gpu", "tasks.speech"]': '["tasks.gpu"]'},
    ),
    "spectra": Example(
        "Estimates chirps in noise; a study whose second run comes from the cache.",
        "spectra",
        ("embedded",),
        ("numpy>=1.26", "matplotlib>=3.8"),
        changes={"examples/spectra/out": "out", "HERE.parents[1]": "HERE"},
    ),
    "empty": Example(
        "Measures how loud signals are: a node to replace by yours.", "cpu", ("embedded",), ("numpy>=1.26",)
    ),
}

#: What a worker's configuration says of its guide, which a project has in its README.
GUIDE = {"README.md here": "README.md"}
