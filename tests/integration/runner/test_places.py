"""Two messages of one run never end in one file without a word: the second fails, and the first stays."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import Image, Message, NodeDefinition, NodeFailed, Pipeline, Runner
from tests.nodes import here, remote
from tests.nodes.remote import CONFIG
from tests.servers import StartWorker


def notes(folder: Path, *items: tuple[str, str], **options: Any) -> Pipeline:
    """A pipeline that writes texts into files."""
    (folder / "out").mkdir(exist_ok=True)
    configuration = {"items": list(map(list, items)), "rate": 0}
    source = NodeDefinition(name="in", type="source", mark="data_streamer", configuration=configuration)
    mark = options.pop("mark", here.Notes)
    sink = NodeDefinition(name="out", mark=mark, configuration={"folder": str(folder / "out")}, **options)
    return Pipeline(name="p", nodes=[source, sink], links=[("in", "out")], folder=folder / "kept")


def written(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((folder / "out").iterdir())}


def replaced(folder: Path, name: str, first: int, second: int) -> str:
    path = re.escape(str(folder / "out" / name))
    return f"out: {path} has message {first} of this run already, and message {second} would replace it; give them"


def test_the_second_fails_and_the_first_stays(tmp_path: Path) -> None:
    items = [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")]
    with pytest.raises(NodeFailed, match=replaced(tmp_path, "a", 0, 2)):
        Runner(local=True).run(notes(tmp_path, *items))
    assert written(tmp_path) == {"a": "1", "b": "2"}
    report = Runner(local=True).run(notes(tmp_path, *items, on_error="skip", retries=3))
    assert written(tmp_path) == {"a": "1", "b": "2", "c": "4"}, "what an earlier run wrote is replaced"
    assert (report["out"].skipped, report["out"].failed, report["out"].retried) == (1, {"failed": 1}, 0)
    Runner(local=True).run(notes(tmp_path, ("a", "5")))
    assert written(tmp_path)["a"] == "5"


def test_one_whose_place_cannot_be_told_fails_and_replaces_nothing(tmp_path: Path) -> None:
    items = [("a", "1"), ("odd", "2"), ("b", "3"), ("b", "4")]
    report = Runner(local=True).run(notes(tmp_path, *items, mark=here.Paths, on_error="skip", retries=3))
    assert written(tmp_path) == {"a": "1", "b": "3"}
    assert (report["out"].skipped, report["out"].failed, report["out"].retried) == (2, {"failed": 2}, 0)
    with pytest.raises(NodeFailed, match=r"^out: its place\(\) failed: KeyError: 'odd'$") as caught:
        Runner(local=True).run(notes(tmp_path, *items, mark=here.Paths))
    assert "in place" in caught.value.remote_traceback


def test_two_sinks_that_write_to_one_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")

    def pipeline(on_error: str) -> Pipeline:
        source, sink = notes(tmp_path, ("a", "1"), ("b", "2"), on_error=on_error).nodes
        other = sink.model_copy(update={"name": "other", "configuration": {"folder": str(tmp_path / "link")}})
        return Pipeline(name="p", nodes=[source, sink, other], links=[("in", "out"), ("in", "other")])

    report = Runner(local=True).run(pipeline("skip"))
    assert (report["out"].skipped + report["other"].skipped, written(tmp_path)) == (2, {"a": "1", "b": "2"})
    already = (
        r"has message \d of '(out|other)' already, and message \d would replace it; let one of the two nodes write"
    )
    with pytest.raises(NodeFailed, match=already):
        Runner(local=True).run(pipeline("stop"))


def test_a_letter_of_it_replaces_nothing_when_it_is_replayed(tmp_path: Path) -> None:
    pipeline = notes(tmp_path, ("a", "1"), ("a", "2"), on_error="dead_letter")
    Runner(local=True).run(pipeline)
    (letter,) = (tmp_path / "kept" / "dead_letters").glob("*.json")
    assert '"attempts": 0' in letter.read_text()
    Runner(local=True).replay(pipeline)
    assert written(tmp_path) == {"a": "1"}
    assert "is there already, and message 1 would replace it; move it away, or" in letter.read_text()
    (tmp_path / "out" / "a").rename(tmp_path / "out" / "first")
    Runner(local=True).replay(pipeline)
    assert written(tmp_path) == {"a": "2", "first": "1"}
    assert not letter.exists()


def test_a_run_that_goes_on_knows_where_the_one_before_wrote(tmp_path: Path) -> None:
    items = [("a", "1"), ("b", "2"), ("b", "3"), ("a", "4"), ("c", "5")]

    def pipeline(on_error: str) -> Pipeline:
        return notes(tmp_path, *items, on_error=on_error)

    with pytest.raises(NodeFailed, match=replaced(tmp_path, "b", 1, 2)) as caught:
        Runner(local=True).run(pipeline("stop"))
    journal = tmp_path / "kept" / "journals" / caught.value.report.run
    noted = (journal / "out.places.written").read_bytes()
    # The journal is written once a second: as if the run had been killed before it said that the first two are through.
    report = Runner(local=True).run(pipeline("skip"), resume=caught.value.report.run)
    assert len(noted) == 2 * 16
    assert written(tmp_path) == {"a": "1", "b": "2", "c": "5"}
    assert report["out"].skipped == 2
    assert not journal.exists()


def test_where_a_is_capital_a_they_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [("a", "1"), ("A", "2"), ("\u00e9", "3"), ("e\u0301", "4")]
    report = Runner(local=True).run(notes(tmp_path, *items, on_error="skip"))
    assert (len(written(tmp_path)), report["out"].skipped) == (4, 0), "here they are not"
    # As on macOS: there is a file of each name, and a list of the folder has one of them.
    listed, out = os.listdir, str(tmp_path / "out")
    monkeypatch.setattr(os, "listdir", lambda folder: ["a", "\u00e9"] if folder == out else listed(folder))
    with pytest.raises(NodeFailed, match=r"/A has a message of this run already, and message 1 would replace it"):
        Runner(local=True).run(notes(tmp_path, *items))
    assert Runner(local=True).run(notes(tmp_path, *items, on_error="skip"))["out"].skipped == 2


def test_pictures_of_one_name_in_two_folders_and_of_two_kinds(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="needs pip install 'celerypipe[vision]'")
    for number, name in enumerate(("cam1/0001.png", "cam2/0001.png", "cam1/a b.png", "cam1/a+b.png", "cam1/a+b.jpg")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), np.full((2, 2, 3), number, np.uint8))
    configuration = {"folder": str(tmp_path / "in"), "pattern": "**/*.*g"}

    def pipeline(**sink: Any) -> Pipeline:
        nodes = [
            NodeDefinition(name="in", type="source", mark="image_files", configuration=configuration),
            NodeDefinition(name="out", type="sink", mark="image_files", on_error="skip", configuration=sink),
        ]
        return Pipeline(name="p", nodes=nodes, links=[("in", "out")], folder=tmp_path / "kept")

    assert Runner(local=True).run(pipeline())["out"].skipped == 3
    assert sorted(path.name for path in (tmp_path / "kept" / "out").iterdir()) == ["0001.png", "a_b.png"]
    cured = pipeline(pattern="{sequence}-{name}.png", folder=str(tmp_path / "cured"))
    assert Runner(local=True).run(cured)["out"].skipped == 0
    assert len(list((tmp_path / "cured").iterdir())) == 5


def test_a_warped_sink_on_several_processes_and_behind_a_node_that_hands_on_to_it(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    pytest.importorskip("cv2", reason="needs pip install 'celerypipe[vision]'")
    allowed = {"CELERYPIPE_ALLOW": str(tmp_path)}
    start_worker("places", pool="prefork", concurrency=2, config=CONFIG, env=allowed)
    limits = {"queue": "places"}
    nodes = [
        NodeDefinition(name="echo", mark=remote.Echo, warped=True, warp_configuration=limits),
        NodeDefinition(
            name="out",
            type="sink",
            mark="image_files",
            configuration={"folder": str(tmp_path)},
            warped=True,
            warp_configuration=limits,
            on_error="skip",
        ),
    ]
    pipeline = Pipeline(name="p", nodes=nodes, links=[("echo", "out")])
    pixels = [Image(np.full((2, 2, 3), number, np.uint8)) for number in range(40)]
    messages = [Message(each, meta={"name": str(number % 30)}) for number, each in enumerate(pixels)]
    runner = Runner(redis_url)
    assert list(runner.stream(pipeline, messages)) == []
    assert runner.report is not None
    assert (runner.report["out"].skipped, len(list(tmp_path.iterdir()))) == (10, 30)


def test_what_a_node_sends_twice_is_dumped_twice(tmp_path: Path) -> None:
    nodes = [NodeDefinition(name="twice", mark=here.Twice, auto_dump=True)]
    pipeline = Pipeline(name="p", nodes=nodes, links=[], folder=tmp_path)
    assert len(list(Runner(local=True).stream(pipeline, [Message(1)]))) == 2
    assert len(list((tmp_path / "twice").glob("auto_*.json"))) == 2
