"""The local nodes of examples/pages, found and made as a run finds and makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from celerypipe import Batch, ConfigError, Image, Message, Object
from celerypipe.catalogue.catalogue import Catalogue
from tests.runs.twins import both_twins, said
from tests.servers import ROOT

pytest.importorskip("cv2", reason="needs pip install 'celerypipe[vision]'")

PLUGINS = ROOT / "examples" / "pages" / "plugins"
FACE = {"x": 40, "y": 50, "width": 30, "height": 20}
LINE = {
    "text": "Grüße, 你好",
    "confidence": 0.87654,
    "box": [[10.0, 100.0], [90.0, 100.0], [90.0, 120.0], [10.0, 120.0]],
}


def made(mark: str, kind: str, **configuration: Any) -> Any:
    """A node of the example, warm."""
    node = Catalogue([PLUGINS]).find(mark, kind).create(configuration)
    node.configure()
    node.warmup()
    return node


def joined(*payloads: Any, **meta: Any) -> Message:
    """What a join by key hands over."""
    return Message(Batch(tuple(Message(payload) for payload in payloads)), meta=meta)


def grey_image(width: int, height: int) -> Image:
    """A picture of one colour."""
    return Image(np.full((height, width, 3), 128, np.uint8), width, height, 3, "RGB")


def test_the_json_and_its_twin_are_one_definition() -> None:
    twins = from_json, from_python = both_twins(PLUGINS.parent)
    assert said(from_json) == said(from_python)
    for pipeline in twins:
        assert [path.resolve() for path in pipeline.plugin_folders] == [PLUGINS]


def test_the_sample_pictures_are_found_inside_their_packages() -> None:
    for package in ("skimage", "matplotlib"):
        pytest.importorskip(package, reason="needs pip install 'celerypipe[vision]'")

    messages = list(made("sample_pages", "source").messages())

    sizes = {message.meta["image"]: message.payload.image.shape for message in messages}
    assert sizes == {
        "page": (191, 384, 3),
        "text": (172, 448, 3),
        "astronaut": (512, 512, 3),
        "grace_hopper": (600, 512, 3),
    }


@pytest.mark.parametrize("picture", ["nowhere/page.png", "celerypipe/no.png", "/etc/hostname", "os/page.png"])
def test_a_picture_that_is_not_there_is_named(picture: str) -> None:
    with pytest.raises(ConfigError, match=picture):
        made("sample_pages", "source", pictures=[picture])


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(200, 100, (960, 480)), (100, 2000, (48, 960)), (9000, 1, (960, 1))]
)
def test_the_longest_side_is_as_told_and_the_proportions_stay(
    width: int, height: int, expected: tuple[int, int]
) -> None:
    answer = made("resize", "proc").update(Message(grey_image(width, height), meta={"image": "grey"}))

    assert (answer.payload.width, answer.payload.height) == expected
    assert answer.payload.image.shape == (expected[1], expected[0], 3)
    assert answer.meta == {"image": "grey", "width": expected[0], "height": expected[1]}


def test_what_was_found_in_one_picture_becomes_one_record() -> None:
    found = joined(Object(faces=[FACE]), Object(lines=[LINE]), image="tag", width=200, height=150)

    record = made("describe", "proc", digits=3).update(found).payload

    assert record == {
        "image": "tag",
        "width": 200,
        "height": 150,
        "faces": [FACE],
        "lines": [{**LINE, "confidence": 0.877}],
    }


@pytest.mark.parametrize("picture_first", [True, False])
def test_boxes_are_drawn_where_the_record_says_and_the_picture_itself_stays(picture_first: bool) -> None:
    image, record = grey_image(200, 150), Object(faces=[FACE], lines=[LINE])
    image.image.flags.writeable = False
    node = made("annotate", "proc")

    drawn = node.update(joined(*((image, record) if picture_first else (record, image)))).payload

    pixels = drawn.image
    left = drawn.width - image.width
    assert tuple(pixels[FACE["y"] + FACE["height"], left + FACE["x"] + 15]) == (230, 30, 60)
    assert tuple(pixels[120, left + 50]) == (0, 110, 230)
    assert tuple(pixels[60, left + 55]) == (128, 128, 128)
    assert (pixels[150:] < 100).any(), "the text stands below the picture"
    assert (image.image == 128).all()


def test_nodes_that_were_not_joined_say_what_to_write() -> None:
    with pytest.raises(TypeError, match='"sync": "key:image"'):
        made("annotate", "proc").update(Message(grey_image(4, 4)))
    with pytest.raises(TypeError, match='"sync": "key:image"'):
        made("describe", "proc").update(Message(Object(faces=[])))
    with pytest.raises(TypeError, match="takes an Image"):
        made("resize", "proc").update(Message("picture"))
