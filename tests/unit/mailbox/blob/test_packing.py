"""Packing blobs: exact or plain, and whatever is wrong with packed bytes is one error that costs no memory."""

from __future__ import annotations

import contextlib
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any, get_args

import lz4.block
import numpy as np
import pytest
import zstandard

from celerypipe import Message, codec
from celerypipe.check.complaints import check
from celerypipe.definition.pipeline import NodeDefinition, Pipeline, WarpConfiguration
from celerypipe.errors import CodecError, ConfigError, DefinitionError
from celerypipe.mailbox.blob.blob import Blobs, Gone, Store
from celerypipe.mailbox.blob.packing import LARGEST, WAYS, complaint, pack, unpack

ZEROS = bytes(200_000)
NOISE = np.random.default_rng(0).bytes(200_000)

both = pytest.mark.parametrize("way", sorted(WAYS))


@both
def test_what_was_packed_comes_out_exactly(way: str) -> None:
    wave = np.sin(np.arange(50_000, dtype=np.float32)).round(2)
    segments = [b"head", b"", memoryview(wave).cast("B"), bytes(3)]
    label, content = pack(way, segments)
    plain = b"".join(segments)
    assert label == f"{way}:{len(plain)}"
    assert len(content) < 0.95 * len(plain)
    assert unpack(label, content) == plain
    assert unpack(label, memoryview(content)) == plain
    assert pack(way, [plain]) == (label, content)


@pytest.mark.parametrize("segments", [[NOISE], [NOISE[:1000], memoryview(NOISE)[1000:]], [memoryview(NOISE)]])
@both
def test_what_gets_hardly_smaller_stays_plain(way: str, segments: list[bytes | memoryview]) -> None:
    assert pack(way, segments) == ("", NOISE)
    almost = NOISE + bytes(len(NOISE) // 30)
    assert pack(way, [almost]) == ("", almost)
    assert unpack("", almost) is almost


def test_none_packs_nothing_and_copies_what_may_change() -> None:
    assert pack("none", [ZEROS]) == ("", ZEROS)
    changing = bytearray(ZEROS)
    _, content = pack("none", [memoryview(changing)])
    changing[0] = 1
    assert content == ZEROS


@both
def test_damaged_bytes_are_a_codec_error(way: str) -> None:
    label, content = pack(way, [ZEROS[:70_000] + NOISE[:30_000]])
    for damaged in (
        b"",
        content[:1],
        content[:-1],
        content[: len(content) // 2],
        content + b"more",
        NOISE,
        b"\xff" * 99,
    ):
        with pytest.raises(CodecError, match=r"packed with|hold"):
            unpack(label, damaged)


@both
def test_flipped_bytes_never_raise_anything_else(way: str) -> None:
    plain = ZEROS[:5_000] + NOISE[:100]
    label, content = pack(way, [plain])
    for place in range(len(content)):
        for value in (0x00, 0x01, 0x7F, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= value
            with contextlib.suppress(CodecError):
                assert len(unpack(label, bytes(damaged))) == len(plain)


@both
def test_a_lie_about_the_size_is_a_codec_error(way: str) -> None:
    _, content = pack(way, [ZEROS])
    for lie in (0, 1, len(ZEROS) - 1, len(ZEROS) + 1, LARGEST):
        with pytest.raises(CodecError, match=r"hold|unpacked"):
            unpack(f"{way}:{lie}", content)
    for lie in (LARGEST + 1, 10**30, -1):
        with pytest.raises(CodecError, match=f"at most {LARGEST}"):
            unpack(f"{way}:{lie}", content)


@pytest.mark.parametrize("label", ["lz4:", "lz4", "lz4:x", "lz4:1_0", "zstd:٣", "zstd:0x10", "lz4:" + "9" * 5000])
def test_a_label_without_a_size_is_a_codec_error(label: str) -> None:
    with pytest.raises(CodecError, match="at most"):
        unpack(label, b"bytes")


def test_an_unknown_way_is_a_codec_error_that_names_the_known_ones() -> None:
    with pytest.raises(CodecError, match=r"'brotli'.*lz4, zstd.*same celerypipe"):
        unpack("brotli:10", b"bytes")


def bombs() -> Iterator[tuple[str, str, bytes]]:
    """Labels and bytes that would fill a gigabyte if anyone believed them."""
    lied = zstandard.ZstdCompressor().compress(bytes(1 << 20))  # its own header says 1 MiB
    streamed = zstandard.ZstdCompressor().compressobj()  # no size in its header
    unsaid = streamed.compress(bytes(1 << 26)) + streamed.flush()
    large = zstandard.ZstdCompressor().compress(bytes(1 << 26))
    block = lz4.block.compress(bytes(1 << 26), store_size=False)
    yield "zstd frame and label differ", "zstd:1000000000", lied
    yield "zstd frame says nothing", "zstd:1000", unsaid
    yield "zstd frame holds more than its label", "zstd:1000", large
    yield "lz4 holds more than its label", "lz4:1000", block
    yield "lz4 cannot hold so much", "lz4:1000000000", block[:1000]


def test_a_bomb_costs_no_memory() -> None:
    for case, label, content in bombs():
        tracemalloc.start()
        try:
            with pytest.raises(CodecError):
                unpack(label, content)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20, case
        finally:
            tracemalloc.stop()


# -- references -----------------------------------------------------------------------------------------------------


class Shelf:
    """Answers MGET and knows nothing else; ``kept`` is what SET brought."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def take(self, commands: list[Any]) -> None:
        self.kept.update({command[1]: b"".join(command[2]) for command in commands})

    def call(self, _: str, *wanted: str) -> list[bytes | None]:
        assert wanted
        return [self.kept.get(name) for name in wanted]


@both
def test_a_reference_says_how_its_blob_is_packed(way: str) -> None:
    store, shelf = Store("run"), Shelf()
    reference, commands = store.put([ZEROS], way)
    shelf.take(commands)
    assert reference.split(":")[1:] == ["1", way, str(len(ZEROS))]
    assert sum(map(len, shelf.kept.values())) < 2000
    found = store.open(shelf, [reference])  # type: ignore[arg-type]
    assert found.content(reference) == ZEROS
    assert found.plain_size(reference) == len(ZEROS)
    assert store.keys_of(reference) == [commands[0][1]]
    (unlink,) = Blobs(store).store.deleting([(reference, True)])
    assert unlink == ("UNLINK", commands[0][1])


def test_a_plain_reference_is_as_it_always_was() -> None:
    store, shelf = Store("run"), Shelf()
    reference, commands = store.put([NOISE], "lz4")
    shelf.take(commands)
    assert reference.count(":") == 1
    assert store.content(shelf, reference) == NOISE  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "reference", ["no", "ab:0", "ab:99999", "ab:-1", "a*b:1", "ab:1:lz4", "ab:1:lz4:5:6", "ab:x", ":"]
)
def test_a_reference_to_nothing_is_a_codec_error_of_whoever_reads_it(reference: str) -> None:
    store = Store("run")
    assert store.keys_of(reference) == []
    assert store.deleting([(reference, True)]) == []
    found = store.open(Shelf(), [reference])  # type: ignore[arg-type]  # nothing to ask for: nothing is asked
    with pytest.raises(CodecError, match="refers to no payload"):
        found.content(reference)


def test_what_is_gone_or_altered_is_told_one_way_and_the_rest_is_read() -> None:
    store, shelf = Store("run", signed=True), Shelf()
    there, gone, altered = (store.put([content]) for content in (NOISE, ZEROS, NOISE[::-1]))
    shelf.take([*there[1], *altered[1]])
    shelf.kept[altered[1][0][1]] = NOISE
    found = store.open(shelf, [there[0], gone[0], altered[0]])  # type: ignore[arg-type]
    assert found.gone(there[0]) is None
    assert found.content(there[0]) == NOISE
    for (reference, _), is_altered in ((gone, False), (altered, True)):
        with pytest.raises(Gone) as told:
            found.read(b"", reference)
        assert told.value.altered is is_altered
        assert found.gone(reference) is not None
        assert found.plain_size(reference) == 0
    assert found.found_size() == len(NOISE)
    found.forget(there[0])
    assert there[0] not in found
    (message,), content = found.read(codec.encode_joined([Message(1)]), "")
    assert (message.payload, content) == (1, None)


# -- the definition -------------------------------------------------------------------------------------------------


def pipeline(compression: str, *, warped: bool = True) -> Pipeline:
    limits = {"queue": "q", "compression": compression}
    nodes = [
        NodeDefinition(name="s", type="source", mark="tests.nodes.here.Numbers"),
        NodeDefinition(name="n", type="proc", mark="passthrough_identity", warped=warped, warp_configuration=limits),
    ]
    return Pipeline(name="p", nodes=nodes, links=[("s", "n")])


def test_the_definition_knows_every_way() -> None:
    assert get_args(WarpConfiguration.model_fields["compression"].annotation) == ("none", *WAYS)
    assert WarpConfiguration().compression == "none"
    with pytest.raises(DefinitionError, match="compression"):
        WarpConfiguration(compression="zip")


@both
def test_a_missing_package_is_a_complaint_with_its_cure(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(pipeline(way)) == []
    monkeypatch.setitem(sys.modules, WAYS[way].module, None)  # what an import then does is raise ImportError
    (found,) = check(pipeline(way))
    assert found.place == "pipeline.nodes[1].warp_configuration.compression"
    assert f"pip install {WAYS[way].package}" in found.text
    assert check(pipeline(way), local=True) == []
    assert check(pipeline(way, warped=False)) == []
    assert check(pipeline("none")) == []
    assert complaint("none") == ""
    for work in (lambda: pack(way, [ZEROS]), lambda: unpack(f"{way}:5", b"bytes")):
        with pytest.raises(ConfigError, match=f"pip install {WAYS[way].package}"):
            work()
