"""srt: subtitles of each recording in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from celerypipe import Message, Object
from celerypipe.nodes.srt import SrtSink


def spoken(*segments: tuple[float, float, str], name: str = "talk", path: str = "/a/talk.wav") -> Message:
    found = [{"start": start, "end": end, "text": text} for start, end, text in segments]
    return Message(Object(segments=found), meta={"name": name, "path": path})


def sink(folder: Path, record: Path | None = None, **arguments: Any) -> SrtSink:
    made = SrtSink(str(folder), **arguments)
    made.record = record
    made.configure()
    made.warmup()
    return made


def test_subtitles_are_numbered_and_in_the_order_of_their_times(tmp_path: Path) -> None:
    made = sink(tmp_path)
    made.update(spoken((3661.5, 3663.25, "later")))
    made.update(spoken((0.0, 1.2, "Grüße\n\n an alle "), (1.2, 2.0, "")))
    made.update(spoken((5, 6, "elsewhere"), name="other", path="/a/other.wav"))
    assert (tmp_path / "talk.srt").read_text("utf-8") == (
        "1\n00:00:00,000 --> 00:00:01,200\nGrüße\nan alle\n\n2\n01:01:01,500 --> 01:01:03,250\nlater\n"
    )
    assert (tmp_path / "other.srt").read_text("utf-8") == "1\n00:00:05,000 --> 00:00:06,000\nelsewhere\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.srt", "talk.srt"]


def test_an_old_file_is_replaced_but_a_resumed_run_goes_on_in_it(tmp_path: Path) -> None:
    record = tmp_path / "record"
    (tmp_path / "talk.srt").write_text("1\n00:00:09,000 --> 00:00:10,000\nold\n")
    first = sink(tmp_path, record)
    first.update(spoken((0, 1, "one")))
    again = sink(tmp_path, record)
    again.update(spoken((0, 1, "one"), (1, 2, "two")))  # sent again, since it was not known to be written
    text = (tmp_path / "talk.srt").read_text()
    assert text == "1\n00:00:00,000 --> 00:00:01,000\none\n\n2\n00:00:01,000 --> 00:00:02,000\ntwo\n"


def test_two_recordings_of_one_name_are_told(tmp_path: Path) -> None:
    made = sink(tmp_path)
    made.update(spoken((0, 1, "one")))
    with pytest.raises(ValueError, match=r"has the subtitles of /a/talk\.wav, not of /b/talk\.wav; write a 'pattern'"):
        made.update(spoken((0, 1, "two"), path="/b/talk.wav"))


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("text", "srt takes an Object with 'segments', .* not str"),
        (Object(text="x"), "not Object with 'text'"),
        (Object(segments=[{"start": 0, "text": "x"}]), r"segments\[0\]: .* needs 'start', 'end'"),
        (Object(segments=[{"start": 2, "end": 1, "text": "x"}]), r"segments\[0\]: from 2 to 1 s is no time"),
        (Object(segments=[{"start": float("nan"), "end": 1, "text": "x"}]), r"segments\[0\]"),
    ],
)
def test_what_has_no_subtitles_is_refused(tmp_path: Path, payload: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        sink(tmp_path).update(Message(payload, meta={"name": "talk"}))
    assert list(tmp_path.iterdir()) == []


def test_a_pattern_that_is_no_subtitle_file_is_refused() -> None:
    with pytest.raises(ValueError, match="no name of a subtitle file"):
        SrtSink("out", "{name}.txt")
