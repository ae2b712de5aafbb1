"""``celerypipe dead``: what it lists, shows, replays and removes, and what it says to nonsense."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from celerypipe import Message, Runner
from celerypipe.definition.pipeline import Pipeline
from celerypipe.runner.folder.letters import DeadLetters
from tests.runs.letters import dead, definition, listed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A pipeline whose run left two dead letters; its node is mended by now."""
    Runner().run(Pipeline.load(definition(tmp_path, [2, 4])))
    return definition(tmp_path, [])


def test_the_list_is_the_same_by_file_and_by_folder(file: Path) -> None:
    run = file.parent / "run"
    letters = listed(file)
    assert letters == listed(run) == listed(run / "dead_letters")
    assert [(letter["node"], letter["attempts"], letter["pipeline"]) for letter in letters] == [
        ("pick", 1, "picky")
    ] * 2
    table = dead("list", file).stdout
    assert letters[0]["name"] in table
    assert "pick: ValueError: 2 is not to my taste" in table
    assert dead("list", file, "--node", "other").stdout == "no dead letters\n"


def test_one_letter_is_shown_with_its_message_and_the_traceback(file: Path) -> None:
    name = listed(file)[0]["name"]
    text = dead("show", file, name).stdout
    for part in ("node:      pick", "payload:   int: 2", "attempts:  1", "Traceback (most recent call last)", "taste"):
        assert part in text
    shown = json.loads(dead("show", file, name, "--json").stdout)
    assert (shown["content"]["payload"], shown["content"]["creator"], shown["error"]) == (2, "numbers", "NodeFailed")


def test_a_large_payload_is_described_and_what_steers_a_terminal_is_not_printed(file: Path) -> None:
    store = DeadLetters(file.parent / "run" / "dead_letters")
    why = {"error": "NodeFailed", "text": "red: \x1b[31m", "attempts": 1, "traceback": "a\x07b\n"}
    store.keep("pick", Message(np.zeros((100, 100)), id="large"), why)
    text = dead("show", file, "large").stdout
    assert "ndarray of 80000 bytes, shape (100, 100), float64" in text
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\x1b" not in dead("list", file).stdout
    assert "80000 bytes" in json.loads(dead("show", file, "large", "--json").stdout)["content"]["payload"]


def test_replay_says_what_came_through_and_what_stays(file: Path) -> None:
    two, four = (letter["name"] for letter in listed(file))
    done = dead("replay", file, two, "--quiet")
    assert (done.exit_code, done.stderr) == (0, "1 dead letter succeeded, 0 remain\n")
    definition(file.parent, [4])
    done = dead("replay", file, "--json", "--quiet")
    assert done.exit_code == 3
    assert done.stderr.endswith("0 dead letters succeeded, 1 remain\n")
    assert json.loads(done.stdout)["status"] == "done"
    assert [(letter["name"], letter["replays"]) for letter in listed(file)] == [(four, 1)]
    definition(file.parent, [])
    assert dead("replay", file.parent / "run").exit_code == 2  # what it writes is not below that folder
    assert (
        dead("replay", file.parent / "run", "--allow", file.parent).exit_code == 3
    )  # config.json of the folder still refuses it
    assert dead("replay", file, "--node", "pick").exit_code == 0
    assert (file.parent / "out.jsonl").read_text().split() == ["0", "1", "3", "5", "2", "4"]
    done = dead("replay", file)
    assert (done.exit_code, done.stderr) == (0, "no dead letters to replay\n")


@pytest.mark.parametrize("place", ["pipeline.json", "run"])
def test_a_pipeline_that_is_fed_from_code_is_replayed_too(tmp_path: Path, place: str) -> None:
    data = json.loads(definition(tmp_path, [2, 4]).read_text())
    del data["pipeline"]["nodes"][0], data["pipeline"]["links"][0]
    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps(data))
    list(Runner().stream(Pipeline.load(file), map(Message, range(6))))
    for kept in (file, tmp_path / "run" / "config.json"):
        mended = json.loads(kept.read_text())
        mended["pipeline"]["nodes"][0]["configuration"] = {"bad": []}
        kept.write_text(json.dumps(mended))
    done = dead("replay", tmp_path / place, "--local", "--allow", tmp_path)
    assert done.exit_code == 0, done.output
    assert "2 dead letters succeeded, 0 remain" in done.stderr
    assert (tmp_path / "out.jsonl").read_text().split() == ["0", "1", "3", "5", "2", "4"]


def test_what_a_replay_brings_out_must_go_somewhere(tmp_path: Path) -> None:
    data = json.loads(definition(tmp_path, [2]).read_text())["pipeline"]
    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps({"pipeline": {**data, "nodes": data["nodes"][1:2], "links": []}}))
    assert [message.payload for message in Runner().stream(Pipeline.load(file), map(Message, range(3)))] == [0, 1]
    done = dead("replay", file, "--local")
    assert done.exit_code == 2
    assert "what 'pick' sends goes nowhere" in done.stderr
    assert "`for message in runner.stream(pipeline, replay=letters)`" in done.stderr
    file.write_text(file.read_text().replace('"bad": [2]', '"bad": []'))
    assert [message.payload for message in Runner().stream(Pipeline.load(file), replay=True)] == [2]


def test_remove_asks_first_and_takes_only_what_was_named(file: Path) -> None:
    two, four = (letter["name"] for letter in listed(file))
    assert dead("remove", file).exit_code == 2
    refused = dead("remove", file, "--all", input="n\n")
    assert refused.exit_code == 1
    assert "Remove 2 dead letters from" in refused.stderr
    assert len(listed(file)) == 2
    assert dead("remove", file, two, input="y\n").stdout.endswith("removed 1 dead letter\n")
    assert [letter["name"] for letter in listed(file)] == [four]
    assert json.loads(dead("remove", file, "--all", "--yes", "--json").stdout)["removed"] == [four]
    assert list((file.parent / "run" / "dead_letters").iterdir()) == []


def test_what_is_no_letter_is_named_and_left_alone(file: Path) -> None:
    folder = file.parent / "run" / "dead_letters"
    for number in range(12):
        (folder / f"note{number:02}.txt").write_text("mine")
    said = dead("list", file).stderr
    assert "ignored: note00.txt: is no dead letter" in said
    assert "ignored: 2 more" in said
    assert dead("remove", file, "--all", "--yes").stdout == "removed 2 dead letters\n"
    assert len(list(folder.iterdir())) == 12


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["show", "pipeline.json", "nobody"], "there is no dead letter 'nobody' in"),
        (["list", "elsewhere"], "no pipeline wrote to this folder"),
        (["list", "none.json"], "none.json"),
        (["list", "bare.json"], 'this pipeline has no "folder"'),
        (["replay", "elsewhere/dead_letters"], "no config.json that says which pipeline this was"),
        (["replay", "moved"], "plugins ./plugins are relative to a file that config.json does not name"),
        (["replay", "pipeline.json", "--run", "abc"], "the address of the run's Redis is missing"),
        (["replay", "pipeline.json", "--run", "abc", "--redis", "nonsense"], "is no Redis URL"),
    ],
)
def test_what_is_wrong_before_anything_happens_exits_2(
    file: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], text: str
) -> None:
    home = file.parent
    (home / "elsewhere").mkdir()
    data = json.loads(file.read_text())
    del data["pipeline"]["folder"], data["pipeline"]["nodes"][1]["on_error"]
    (home / "bare.json").write_text(json.dumps(data))
    for place in ("moved", "elsewhere"):
        DeadLetters(home / place / "dead_letters").folder.mkdir(parents=True)
        DeadLetters(home / place / "dead_letters").keep("pick", Message(1), {"error": "x"})
    (home / "moved" / "config.json").write_text(json.dumps({**data, "plugins": ["./plugins"]}))
    if words == ["list", "elsewhere"]:
        words = ["list", "."]
    monkeypatch.chdir(home)
    done = dead(*words)
    assert done.exit_code == 2, done.output
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_is_not_there_is_said(file: Path, redis_url: str) -> None:
    done = dead("replay", file, "--run", "abc", "--redis", redis_url)
    assert done.exit_code == 2
    assert "there is no run 'abc' active" in done.stderr
    assert len(listed(file)) == 2


def test_replay_brings_its_own_redis_and_worker_where_nobody_names_one(tmp_path: Path) -> None:
    there = {"warped": True, "warp_configuration": {"queue": "picky"}, "timeout": 30}
    path = definition(tmp_path, [2, 4], **there)
    Runner(local=True).run(Pipeline.load(path))
    done = dead("replay", definition(tmp_path, [4], **there))
    assert done.exit_code == 3, done.output
    assert "1 dead letter succeeded, 1 remain" in done.stderr
    (letter,) = listed(path)
    assert "process" in letter["worker"]
    assert (tmp_path / "out.jsonl").read_text().split() == ["0", "1", "3", "5", "2"]
