"""Which files a pipeline may touch that somebody else wrote, or sent to a worker, or shaped by a message."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import ConfigError, Image, Message, Pipeline, Runner
from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.contract.reach import ANYWHERE, LONGEST, Reach, file_name
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import DefinitionError
from celerypipe.runner.folder.folder import Folder
from celerypipe.runner.folder.letters import PLACE, DeadLetters
from tests.servers import StartWorker, Write
from tests.servers.command import celerypipe

NUMBERS = {"name": "src", "type": "source", "mark": "data_streamer", "configuration": {"count": 2, "rate": 0}}
LABEL = """
from celerypipe import Proc

class Label(Proc):
    def update(self, message):
        return message
"""


def definition(sink: dict[str, Any], **more: Any) -> dict[str, Any]:
    nodes = [NUMBERS, {"name": "out", "type": "sink", **sink}]
    body = {"name": "theirs", "nodes": nodes, "links": [{"from": "src", "to": "out"}], **more}
    return {"version": "1", "pipeline": body}


def json_lines(path: Path | str, **more: Any) -> dict[str, Any]:
    return {"mark": "json_lines", "configuration": {"path": str(path), **more}}


# -- a pipeline file --------------------------------------------------------------------------------------------------


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """The folder that somebody else's pipeline came in, beside one of ours."""
    for name in ("theirs", "ours", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "ours" / "precious").write_text("precious")
    (tmp_path / "theirs" / "link").symlink_to(tmp_path / "ours")
    (tmp_path / "theirs" / "file").symlink_to(tmp_path / "ours" / "precious")
    return tmp_path / "theirs"


def run(theirs: Path, data: dict[str, Any], *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    file = theirs / "pipeline.json"
    file.write_text(json.dumps(data))
    return celerypipe("run", file, "--quiet", *words, cwd=theirs.parent / "here", **environment)


@pytest.mark.parametrize(
    "path", ["../ours/precious", "{theirs}/link/precious", "{theirs}/file", "{theirs}/../ours/new"]
)
def test_the_sink_of_a_pipeline_file_writes_nothing_outside(theirs: Path, path: str) -> None:
    done = run(theirs, definition(json_lines(path.format(theirs=theirs))))
    assert done.returncode == 2, done.stderr
    assert "is outside the allowed folders: " in done.stderr
    folder = theirs.parent / "ours" / ("new" if path.endswith("new") else ".")
    assert f"run with --allow {folder}, or export CELERYPIPE_ALLOW={folder}" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(theirs.parent / "ours") == ["precious"]
    assert (theirs.parent / "ours" / "precious").read_text() == "precious"


def test_what_the_user_allows_on_his_command_line_is_his_right(theirs: Path) -> None:
    ours = theirs.parent / "ours"
    done = run(theirs, definition(json_lines(ours / "one.jsonl")), "--allow", str(ours))
    assert (done.returncode, (ours / "one.jsonl").read_text()) == (0, "0\n1\n"), done.stderr
    done = run(theirs, definition(json_lines("../ours/two.jsonl")), CELERYPIPE_ALLOW=str(ours))
    assert (done.returncode, (ours / "two.jsonl").read_text()) == (0, "0\n1\n"), done.stderr


def test_the_folder_and_the_plugins_of_a_pipeline_file_are_below_its_own(theirs: Path) -> None:
    data = definition(json_lines("out.jsonl"), folder="../ours")
    data["plugins"] = ["plugins", "link/plugins", "/usr/share/plugins"]
    with pytest.raises(DefinitionError) as caught:
        Pipeline.from_dict(data, theirs)
    assert [complaint.place for complaint in caught.value.complaints] == ["plugins[1]", "plugins[2]", "pipeline.folder"]
    done = run(theirs, data)
    assert done.returncode == 2
    assert "pipeline.folder: " in done.stderr
    assert os.listdir(theirs.parent / "ours") == ["precious"]

    pipeline = Pipeline.from_dict(data, theirs, allow=[theirs.parent, Path("/usr/share")])
    assert pipeline.folder_path == theirs / "../ours"
    assert Pipeline(name="mine", nodes=[NodeDefinition(**NUMBERS)], folder="/anywhere").reach.folders is None


@pytest.mark.parametrize("name", ["out", "config.json", "telemetry.csv"])
def test_a_link_that_waits_in_the_folder_is_not_followed(theirs: Path, name: str) -> None:
    (theirs / "pipe").mkdir()
    (theirs / "pipe" / name).symlink_to(theirs.parent / "ours" / ("precious" if "." in name else "."))
    data = definition(json_lines("out.jsonl"), folder="pipe", telemetry="telemetry.csv")
    done = run(theirs, data)
    assert done.returncode == 2, done.stderr
    assert "is outside the allowed folders" in done.stderr
    assert (theirs.parent / "ours" / "precious").read_text() == "precious"


def test_a_source_reads_nothing_outside(theirs: Path) -> None:
    for mark, configuration in [
        ("json_lines", {"path": str(theirs / "file")}),
        ("image_files", {"paths": [str(theirs / "file")]}),
        ("image_files", {"folder": str(theirs), "pattern": "../ours/*"}),
        ("image_files", {"folder": str(theirs / "link"), "pattern": "*"}),
    ]:
        data = definition({"mark": "console"})
        data["pipeline"]["nodes"][0] = {"name": "src", "type": "source", "mark": mark, "configuration": configuration}
        with pytest.raises(ConfigError, match="is outside the allowed folders"):
            Runner(local=True).run(Pipeline.from_dict(data, theirs))


def test_a_plugin_is_all_in_its_folder(tmp_path: Path, write: Write) -> None:
    write("elsewhere/label.py", LABEL)
    home = write("plugins/nodes/proc/_label/config.toml", "").parent
    (home / "label.py").symlink_to(tmp_path / "elsewhere" / "label.py")
    with pytest.raises(
        ConfigError, match=r"outside the allowed folders: .*copy what the link leads to into the plugin folder"
    ):
        Catalogue([tmp_path / "plugins"]).find("label")

    (home / "label.py").unlink()
    write("plugins/nodes/proc/_label/label.py", LABEL)
    assert Catalogue([tmp_path / "plugins"]).find("label").type == "proc"
    (home / "config.toml").unlink()
    (home / "config.toml").symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="outside the allowed folders"):
        Catalogue([tmp_path / "plugins"]).find("label")


# -- what a worker is sent --------------------------------------------------------------------------------------------


def sinking(queue: str, path: Path) -> Pipeline:
    sink = NodeDefinition(
        name="out", type="sink", warped=True, warp_configuration={"queue": queue}, **json_lines(path, append=True)
    )
    return Pipeline(name="sent", nodes=[NodeDefinition(**NUMBERS), sink], links=[("src", "out")])


def test_a_worker_writes_only_where_its_own_user_allows(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    """The path of a warped sink comes from whoever reaches Redis; the folder that the worker runs in is no place."""
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path)
    environment = {"CELERYPIPE_ALLOW": str(tmp_path / "allowed")}
    start_worker("files", config='worker_pool = "solo"\n', cwd=tmp_path, env={**environment})
    for path in (tmp_path / "x", tmp_path / "allowed/../x", tmp_path / "allowed/link/x", Path("x")):
        with pytest.raises(
            ConfigError, match=r"outside the allowed folders: .* start the worker with CELERYPIPE_ALLOW="
        ):
            Runner(redis_url).run(sinking("files", path))
    assert not (tmp_path / "x").exists()
    Runner(redis_url).run(sinking("files", tmp_path / "allowed" / "out.jsonl"))
    assert (tmp_path / "allowed" / "out.jsonl").read_text() == "0\n1\n"


def test_over_an_embedded_redis_a_warped_sink_reaches_what_it_reaches_here(theirs: Path) -> None:
    """Nobody but this user reaches that worker."""
    limits = {"warped": True, "warp_configuration": {"queue": "embedded"}}
    done = run(theirs, definition({**json_lines(theirs / "out.jsonl", append=True), **limits}))
    assert done.returncode == 0, done.stderr
    assert sorted((theirs / "out.jsonl").read_text().split()) == ["0", "1"], "in any order: its worker has two slots"


# -- names that come in messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "a/b", "..", ".", "", ".hidden", "a\0b", "x" * 5000, "é/ü", "\ud800", "con\n"]
)
def test_the_id_of_a_message_names_no_file_outside(tmp_path: Path, name: str) -> None:
    path = tmp_path / "deep" / "pipe"
    folder = Folder(path, None, DeadLetters(path / PLACE), ANYWHERE)
    folder.make({}, ["node"])
    message = Message(1, id=name)
    folder.dump("node", message)
    folder.letters.keep("node", message, {"kind": "failed"})
    assert sorted(os.listdir(tmp_path / "deep" / "pipe")) == ["config.json", "dead_letters", "node"]
    assert os.listdir(tmp_path) == ["deep"]
    assert os.listdir(tmp_path / "deep") == ["pipe"]
    assert len(os.listdir(tmp_path / "deep" / "pipe" / "node")) == 1
    assert len(os.listdir(tmp_path / "deep" / "pipe" / "dead_letters")) == 2


def test_two_ids_never_share_a_file() -> None:
    assert file_name("3f2a-17") == "3f2a-17"
    strange = ["a/b", "a_b", "a:b", ".a_b", "x" * LONGEST, "x" * (LONGEST + 1), "x" * (LONGEST + 2), "", "_"]
    assert len({file_name(each) for each in strange}) == len(strange)


def test_a_picture_follows_no_link_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path)
    sink = Catalogue().find("image_files", "sink").node(folder=str(tmp_path / "out"), pattern="{where}/{name}.png")
    sink.reach = Reach.of([tmp_path / "out"], "stay there")
    sink.configure()
    sink.warmup()
    picture = Image(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ConfigError, match="outside the allowed folders"):
        sink.update(Message(picture, meta={"where": "a", "name": "x"}))  # type: ignore[attr-defined]
    sink.update(Message(picture, meta={"where": "../..", "name": "x"}))  # type: ignore[attr-defined]
    assert sorted(os.listdir(tmp_path)) == ["out"]
