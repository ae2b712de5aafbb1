"""image_files, the source and the sink."""

from __future__ import annotations

import numpy as np
import pytest

from celerypipe.errors import ConfigError
from celerypipe.message.message import Message
from celerypipe.message.payload import Image

image_files = pytest.importorskip(
    "celerypipe.nodes.image_files", reason="needs Pillow: pip install celerypipe[images]", exc_type=ImportError
)
PIL = image_files.PIL


def picture() -> np.ndarray:
    """Red left, blue right, a green corner: every mix-up of channels or axes shows."""
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15] = (255, 0, 0)
    pixels[:, 15:] = (0, 0, 255)
    pixels[:5, :5] = (0, 255, 0)
    return pixels


def save(folder, *messages, **arguments):
    sink = image_files.ImageFilesSink(str(folder), **arguments)
    sink.configure()
    sink.warmup()
    for message in messages:
        sink.update(message)
    sink.destroy()


def load(**arguments):
    source = image_files.ImageFilesSource(**arguments)
    source.configure()
    source.warmup()
    messages = list(source.messages())
    source.destroy()
    return messages


def test_a_picture_written_and_read_again_is_the_same(tmp_path):
    save(tmp_path / "out", Message(Image(picture(), pixel_format="RGB"), meta={"name": "flag"}))
    (message,) = load(paths=[str(tmp_path / "out" / "flag.png")])
    assert np.array_equal(message.payload.image, picture())
    assert (message.payload.width, message.payload.height, message.payload.depth) == (30, 20, 3)
    assert message.payload.pixel_format == "RGB"
    assert message.meta == {"name": "flag", "path": str(tmp_path / "out" / "flag.png"), "page": 1}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["flag.png"]


@pytest.mark.parametrize(
    ("form", "pixels"),
    [
        ("BGR", picture()[:, :, ::-1]),
        ("", picture()),
        ("rgb", picture()[::-1][::-1]),
        ("RGBA", np.dstack([picture(), np.full((20, 30), 255, np.uint8)])),
    ],
)
def test_every_pixel_format_lands_as_the_same_picture(tmp_path, form, pixels):
    save(tmp_path, Message(Image(pixels, pixel_format=form), meta={"name": "flag"}))
    (message,) = load(folder=str(tmp_path))
    assert np.array_equal(message.payload.image, picture())


def test_a_tiff_whose_end_is_missing_is_an_error_after_the_pages_that_are_there(tmp_path):
    pages = [PIL.Image.fromarray(picture()[:, : 30 - number]) for number in range(4)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    whole = (tmp_path / "scan.tif").read_bytes()
    assert image_files.pages_of(tmp_path / "scan.tif") == 4
    (tmp_path / "scan.tif").write_bytes(whole[: len(whole) * 5 // 8])
    source = image_files.ImageFilesSource(paths=[str(tmp_path / "scan.tif")])
    source.configure()
    messages = source.messages()
    assert [next(messages).meta["page"] for _ in range(2)] == [1, 2]
    with pytest.raises(ValueError, match=r"scan\.tif \(page 3\): no picture that Pillow can read"):
        next(messages)


def test_a_folder_is_read_in_order_of_names_and_by_pattern(tmp_path):
    for name in ("b.png", "a.jpg", "c.png"):
        save(tmp_path, Message(Image(picture())), pattern=name)
    (tmp_path / "notes.txt").write_text("no picture")
    assert [message.meta["name"] for message in load(folder=str(tmp_path))] == ["a", "b", "c"]
    assert [m.meta["name"] for m in load(folder=str(tmp_path), pattern="*.png")] == ["b", "c"]


def test_each_of_several_is_known_by_a_position_of_its_own(tmp_path):
    for name in ("a.png", "a.png#2"):
        (tmp_path / name).touch()
    source = image_files.ImageFilesSource(paths=[str(tmp_path / name) for name in ("a.png", "a.png", "a.png#2")])
    source.configure()
    assert len({source.position(Message(version=version)) for version in range(3)}) == 3


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    (tmp_path / "empty.png").touch()
    for name in ("broken.png", "empty.png"):
        with pytest.raises(ValueError, match=rf"{name}: no picture"):
            load(paths=[str(tmp_path / name)])


def test_missing_files_and_folders_are_named_before_the_run(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file: .*x\.png, .*y\.png"):
        load(paths=[str(tmp_path / "x.png"), str(tmp_path / "y.png")])
    with pytest.raises(ConfigError, match=r"no such folder: .*nowhere"):
        load(folder=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"no file with a picture's suffix \(\.bmp"):
        load(folder=str(tmp_path))


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..", "a/b", "a\x00b", "." * 300, ""])
def test_no_message_can_name_a_file_outside_the_folder(tmp_path, name):
    folder = tmp_path / "out"
    save(folder, Message(Image(picture()), meta={"name": name}))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1
    assert files[0].parent == folder
    assert files[0].suffix == ".png"


def test_a_pattern_may_use_numbers_and_folders_of_its_own(tmp_path):
    message = Message(Image(picture()), meta={"page": "one"}, sequence=7)
    save(tmp_path, message, pattern="{page}/{sequence:04d}.jpg")
    assert (tmp_path / "one" / "0007.jpg").is_file()


def test_without_a_folder_the_sink_writes_to_the_nodes_own(tmp_path):
    sink = image_files.ImageFilesSink()
    with pytest.raises(ConfigError, match="give 'folder', or give the pipeline one"):
        sink.configure()
    sink.folder = tmp_path / "sink"
    sink.configure()
    sink.warmup()
    sink.update(Message(Image(picture()), meta={"name": "flag"}))
    assert (tmp_path / "sink" / "flag.png").is_file()


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("../{name}.png", "leads out of the folder"),
        ("/tmp/{name}.png", "leads out of the folder"),  # noqa: S108  # refused, never written
        ("{name}", "has no suffix of a picture"),
        ("{name}.exe", "has no suffix of a picture"),
        ("{name.__class__}.png", "write the name of an entry of meta"),
        ("{}.png", "write the name of an entry of meta"),
        ("{name.png", "no suffix|no format"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_at_once(pattern, said):
    with pytest.raises(ValueError, match=said):
        image_files.ImageFilesSink("out", pattern)


def test_what_is_no_image_is_refused_with_the_cure(tmp_path):
    with pytest.raises(TypeError, match="writes an Image, not dict"):
        save(tmp_path, Message({}, meta={"name": "x"}))
    with pytest.raises(TypeError, match=r"dtype float64 cannot be written"):
        save(tmp_path, Message(Image(np.zeros((2, 2))), meta={"name": "x"}))
    with pytest.raises(ValueError, match="pixel_format 'RGB' with 4 channels"):
        save(tmp_path, Message(Image(np.zeros((2, 2, 4), np.uint8), pixel_format="RGB"), meta={"name": "x"}))
    with pytest.raises(LookupError, match="asks for 'name'; this message's meta has 'page'"):
        save(tmp_path, Message(Image(picture()), meta={"page": 1}))
    assert list(tmp_path.iterdir()) == []


def test_each_page_of_a_tiff_is_a_message_and_a_run_goes_on_at_the_next(tmp_path):
    pages = [PIL.Image.new("RGB", (4, 3), (number, 0, 0)) for number in (10, 20, 30)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "broken.tif").write_bytes(b"II*\0rubbish")
    arguments = {"folder": str(tmp_path)}
    source = image_files.ImageFilesSource(**arguments)
    source.configure()
    messages = source.messages()
    with pytest.raises(ValueError, match=r"broken\.tif: no picture that Pillow can read"):
        next(messages)
    found = list(messages)
    assert [(m.meta["name"], m.meta["page"], m.payload.image[0, 0, 0]) for m in found] == [
        ("scan", 1, 10),
        ("scan", 2, 20),
        ("scan", 3, 30),
    ]
    again = image_files.ImageFilesSource(**arguments)
    again.configure()
    again.seek({source.position(message) for message in found[:2]} | {str(tmp_path / "broken.tif")})
    assert [message.meta["page"] for message in again.messages()] == [3]


def test_hidden_files_are_left_out_unless_asked_for(tmp_path):
    for name in ("._a.png", ".b.png", "c.png"):
        save(tmp_path, Message(Image(picture()), meta={"name": "x"}), pattern="x.png")
        (tmp_path / "x.png").rename(tmp_path / name)
    assert [message.meta["name"] for message in load(folder=str(tmp_path))] == ["c"]
    assert len(load(folder=str(tmp_path), pattern=".*.png")) == 2


@pytest.mark.parametrize(("mode", "value", "seen"), [("I;16", 0x4321, 0x43), ("L", 7, 7), ("P", 0, 0), ("LA", 9, 9)])
def test_pictures_of_other_kinds_become_rgb(tmp_path, mode, value, seen):
    pixels = np.full((2, 2), value, np.uint16 if mode == "I;16" else np.uint8)
    drawn = PIL.Image.fromarray(pixels)
    (drawn if mode == "I;16" else drawn.convert(mode)).save(tmp_path / "a.png")
    (message,) = load(folder=str(tmp_path))
    assert message.payload.image.dtype == np.uint8
    assert (message.payload.image == seen).all()


def test_sixteen_bits_are_written_in_grey_and_refused_in_colour(tmp_path):
    save(tmp_path, Message(Image(np.full((2, 2), 0x1234, np.uint16), pixel_format="GRAY"), meta={"name": "deep"}))
    assert (np.asarray(PIL.Image.open(tmp_path / "deep.png")) == 0x1234).all()
    with pytest.raises(ValueError, match=r"cannot write uint16 of shape \(2, 2, 3\) as \.png"):
        save(tmp_path, Message(Image(np.zeros((2, 2, 3), np.uint16)), meta={"name": "x"}))
    with pytest.raises(ValueError, match=r"as \.jpg .*try \.png"):
        save(tmp_path, Message(Image(np.zeros((2, 2, 4), np.uint8)), meta={"name": "x"}), pattern="{name}.jpg")
