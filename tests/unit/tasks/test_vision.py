"""Faces and text, found by the real models in real pictures that installed packages carry."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from billiard.pool import Pool

from celerypipe import ConfigError, Image, Message
from tests.runs.pictures import PAGES, PORTRAITS, PROSE
from tests.servers.extent import LONG

NO_VISION = "needs pip install 'celerypipe[vision]'"


@pytest.fixture(scope="module")
def cpu() -> ModuleType:
    """``tasks.cpu``, where its extra is installed."""
    pytest.importorskip("cv2", reason=NO_VISION)
    return importlib.import_module("tasks.cpu")


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    """``tasks.gpu``, where its extra is installed."""
    pytest.importorskip("rapidocr", reason=NO_VISION)
    return importlib.import_module("tasks.gpu")


@pytest.fixture(scope="module")
def reader(gpu: ModuleType) -> Iterator[Any]:
    """A warm ReadText."""
    node = gpu.ReadText()
    node.configure()
    node.warmup()
    yield node
    node.destroy()


@pytest.fixture(scope="module")
def detector(cpu: ModuleType) -> Any:
    """A warm DetectFaces."""
    node = cpu.DetectFaces()
    node.configure()
    node.warmup()
    return node


def picture(inside: str, longest_side: int = 0) -> Image:
    """Read a picture out of a package; enlarged where a side is given."""
    package, _, rest = inside.partition("/")
    cv2 = pytest.importorskip("cv2", reason=NO_VISION)
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package}: {NO_VISION}")
    pixels = cv2.cvtColor(cv2.imread(str(Path(spec.submodule_search_locations[0], rest))), cv2.COLOR_BGR2RGB)
    if longest_side:
        factor = longest_side / max(pixels.shape[:2])
        size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
    return Image(pixels, pixels.shape[1], pixels.shape[0], 3, "RGB")


def overlap(face: dict[str, int], box: tuple[int, int, int, int]) -> float:
    """Intersection over union."""
    x, y, width, height = box
    across = min(face["x"] + face["width"], x + width) - max(face["x"], x)
    down = min(face["y"] + face["height"], y + height) - max(face["y"], y)
    shared = max(0, across) * max(0, down)
    return shared / (face["width"] * face["height"] + width * height - shared)


def without_spaces(text: str) -> str:
    """Spaces between words are the least certain thing these models say."""
    return "".join(text.split())


@pytest.mark.parametrize("inside", PORTRAITS)
def test_the_face_in_a_portrait_is_found_where_it_is_and_no_other(detector: Any, inside: str) -> None:
    answer = detector.update(Message(picture(inside), meta={"image": inside}))

    assert len(answer.payload.faces) == 1
    assert overlap(answer.payload.faces[0], PORTRAITS[inside]) > 0.6
    assert answer.meta == {"image": inside}
    assert answer.timers["faces"] > 0


@pytest.mark.parametrize("inside", PAGES)
def test_a_page_has_no_face(detector: Any, inside: str) -> None:
    assert detector.update(Message(picture(inside, 960))).payload.faces == []


def test_two_faces_come_largest_first(detector: Any) -> None:
    small = picture("skimage/data/astronaut.png").image
    large = picture("skimage/data/astronaut.png", 1024).image
    sheet = np.zeros((1024, 1536, 3), np.uint8)
    sheet[:512, :512], sheet[:, 512:] = small, large

    faces = detector.update(Message(Image(sheet, 1536, 1024, 3, "RGB"))).payload.faces

    assert [face["x"] > 512 for face in faces] == [True, False]


def test_the_order_of_the_channels_is_heeded(cpu: ModuleType) -> None:
    red, green, blue = 200, 100, 50
    pixels = np.full((4, 6, 3), (red, green, blue), np.uint8)

    rgb = cpu.gray_pixels(Image(pixels, pixel_format="RGB"))
    bgr = cpu.gray_pixels(Image(pixels[..., ::-1].copy(), pixel_format="BGR"))
    gray = cpu.gray_pixels(Image(pixels[..., 1].copy(), pixel_format="GRAY"))

    assert rgb[0, 0] == bgr[0, 0] == round(0.299 * red + 0.587 * green + 0.114 * blue)
    assert gray[0, 0] == green


def test_an_unknown_cascade_is_answered_with_the_nearest(cpu: ModuleType) -> None:
    with pytest.raises(ConfigError, match="did you mean 'haarcascade_frontalface_default'"):
        cpu.DetectFaces(cascade="haarcascade_frontalface_defualt").warmup()
    with pytest.raises(ConfigError, match="carries no"):
        cpu.DetectFaces(cascade="../data/haarcascade_eye").warmup()


@pytest.fixture(scope="module")
def lines(reader: Any) -> list[dict[str, Any]]:
    """What is read of a printed page."""
    found: list[dict[str, Any]] = reader.update(Message(picture("skimage/data/page.png", 960))).payload.lines
    return found


def test_the_prose_of_a_printed_page_is_read_word_by_word(lines: list[dict[str, Any]]) -> None:
    assert [without_spaces(line["text"]) for line in lines[: len(PROSE)]] == list(map(without_spaces, PROSE))
    assert all(0.9 < line["confidence"] <= 1 for line in lines[: len(PROSE)])


def test_every_line_has_a_box_inside_the_picture_and_they_go_down_the_page(lines: list[dict[str, Any]]) -> None:
    page = picture("skimage/data/page.png", 960)

    corners = np.array([line["box"] for line in lines])

    assert corners.shape[1:] == (4, 2)
    assert corners.min() >= 0
    assert corners[..., 0].max() <= page.width
    assert corners[..., 1].max() <= page.height
    middles = corners[..., 1].mean(axis=1)
    assert list(middles) == sorted(middles)


@pytest.mark.parametrize("inside", ["skimage/data/astronaut.png", *(["skimage/data/text.png"] if LONG else [])])
def test_handwriting_and_pictures_without_print_give_no_lines(reader: Any, inside: str) -> None:
    assert reader.update(Message(picture(inside, 960))).payload.lines == []


@pytest.mark.parametrize("gray", [True, *([False] if LONG else [])])
def test_a_name_tag_on_a_portrait_is_read_in_grey_as_in_colour(reader: Any, gray: bool) -> None:
    tag = picture("matplotlib/mpl-data/sample_data/grace_hopper.jpg", 960)
    if gray:
        tag = replace(tag, image=tag.image[..., 1].copy(), depth=1, pixel_format="GRAY")

    lines = reader.update(Message(tag)).payload.lines

    assert [without_spaces(line["text"])[:8] for line in lines] == ["COMOHOPP"]


def test_what_is_no_image_is_refused_with_the_cure(reader: Any, detector: Any) -> None:
    for node in (reader, detector):
        with pytest.raises(TypeError, match="takes an Image, not str"):
            node.update(Message("a picture"))
        with pytest.raises(ValueError, match="float64"):
            node.update(Message(Image(np.zeros((4, 4, 3)))))
        with pytest.raises(ValueError, match="use RGB"):
            node.update(Message(Image(np.zeros((4, 4, 3), np.uint8), pixel_format="YUV")))


def test_cuda_that_is_not_there_is_refused_when_it_was_asked_for(gpu: ModuleType) -> None:
    if gpu.CUDA in importlib.import_module("onnxruntime").get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(ConfigError, match="onnxruntime-gpu"):
        gpu.ReadText(device="cuda").configure()


def configure_in_a_fork(device: str) -> str:
    """Run in a pool's child: what ``configure`` says there."""
    node = importlib.import_module("tasks.gpu").ReadText(device=device)
    try:
        node.configure()
    except ConfigError as error:
        return str(error)
    return "cuda" if node.use_cuda else "cpu"


def test_a_forked_pool_may_read_on_the_processor_but_not_on_cuda(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The one thing that is pretended: most machines that run this test have no GPU.
    monkeypatch.setattr(
        importlib.import_module("onnxruntime"), "get_available_providers", lambda: [gpu.CUDA, "CPUExecutionProvider"]
    )
    pool = Pool(1)
    try:
        refused = pool.apply(configure_in_a_fork, ("auto",))
        allowed = pool.apply(configure_in_a_fork, ("cpu",))
    finally:
        pool.terminate()
        pool.join()
    here = gpu.ReadText()
    here.configure()

    assert 'worker_pool = "solo"' in refused
    assert allowed == "cpu"
    assert here.use_cuda
