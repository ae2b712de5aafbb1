"""Files of shared memory that stay mapped, and what may be read in them meanwhile."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from celerypipe.mailbox.blob import maps
from celerypipe.mailbox.blob.maps import watch
from celerypipe.mailbox.blob.shared_memory import RECYCLED_FROM, ROOT, SharedFolder

pytestmark = pytest.mark.skipif(not os.access(ROOT, os.W_OK), reason=f"no {ROOT} here")


def mapped(folder: SharedFolder) -> int:
    """How many maps this process has of the files of a run."""
    return Path("/proc/self/maps").read_text().count(folder._path.name)


def written(folder: SharedFolder, byte: int, size: int = RECYCLED_FROM) -> str:
    reference = folder.write([bytes([byte]) * (size - 5), memoryview(np.full(5, byte, np.uint8))])
    assert reference is not None
    return reference


def content_of(folder: SharedFolder, reference: str) -> memoryview:
    content = folder.read(reference)
    assert isinstance(content, memoryview)
    return content


def again(folder: SharedFolder, times: int, size: int = RECYCLED_FROM) -> str:
    """Write the same file so many times, and read it each time."""
    for byte in range(times):
        reference = written(folder, byte, size)
        assert content_of(folder, reference) == bytes([byte]) * size
        folder.recycle(reference)
    return reference


def test_a_file_that_comes_round_again_stays_mapped_and_has_no_reader(folder: SharedFolder) -> None:
    again(folder, 3)
    assert mapped(folder) == 2, "one to write by, one to read by"
    reference = written(folder, 7)
    content = content_of(folder, reference)
    kept, array = watch(content), np.frombuffer(content, np.uint8)[10:]
    del content
    assert kept() is not None
    other = content_of(folder, reference)
    del array
    assert kept() is None, "another one reads in the same map"
    assert other == bytes([7]) * RECYCLED_FROM
    assert other.readonly
    assert mapped(folder) == 2


def test_what_does_not_come_again_is_not_kept(folder: SharedFolder) -> None:
    assert content_of(folder, written(folder, 1))[0] == 1
    small = written(folder, 2, RECYCLED_FROM - 1)  # such a file is never written again
    assert all(content_of(folder, small)[0] == 2 for _ in range(3))
    assert mapped(folder) == 0


def test_what_is_removed_is_mapped_no_more(folder: SharedFolder) -> None:
    again(folder, 3)
    reference = written(folder, 9)
    view = content_of(folder, reference)
    folder.delete(reference)
    assert mapped(folder) == 1
    assert view == bytes([9]) * RECYCLED_FROM
    del view
    assert mapped(folder) == 0
    again(folder, 3)
    folder.remove()
    assert mapped(folder) == 0


def test_a_file_that_was_written_again_is_young(folder: SharedFolder) -> None:
    name = again(folder, 2)[1:].partition(":")[0]
    os.utime(folder._path / "free" / str(RECYCLED_FROM) / name, (1, 1))
    written(folder, 3)
    assert folder.leftovers(older_than=1e9) == []


def test_only_the_last_used_are_kept(folder: SharedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "_KEPT_BYTES", 3 * RECYCLED_FROM + 3)
    for size in range(RECYCLED_FROM, RECYCLED_FROM + 4):
        again(folder, 3, size)
    assert mapped(folder) == 4, "two sizes, to write and to read"
    monkeypatch.setattr(maps, "_KEPT", 1)
    again(folder, 3)
    assert mapped(folder) == 2
    monkeypatch.setattr(maps, "_MOST_TO_KEEP", 0)
    folder.remove()


def test_where_memory_is_counted_nothing_stays_mapped(folder: SharedFolder) -> None:
    found = SharedFolder.find(folder._path.name.removeprefix("celerypipe-run-"), keep_maps=False)
    assert found is not None
    again(found, 3)
    assert mapped(folder) == 0


def test_beyond_a_number_of_maps_nothing_is_kept_and_then_nothing_is_mapped(
    folder: SharedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "_MOST_TO_KEEP", len(maps._maps))
    again(folder, 3)
    assert mapped(folder) == 0
    monkeypatch.setattr(maps, "_MOST_MAPS", len(maps._maps))
    assert folder.read(written(folder, 5)) == bytes([5]) * RECYCLED_FROM
    assert mapped(folder) == 0


def test_a_file_of_another_length_is_not_written_by_its_map(folder: SharedFolder) -> None:
    name = again(folder, 3)[1:].partition(":")[0]
    os.truncate(folder._path / "free" / str(RECYCLED_FROM) / name, 100)
    assert content_of(folder, written(folder, 4)) == bytes([4]) * RECYCLED_FROM


def test_no_reader_ever_sees_another_message(folder: SharedFolder) -> None:
    """Two processes' worth of folders write, read, keep and let go in any order; a file is reused when nobody reads."""
    dice = random.Random(17)  # noqa: S311  # no secret
    other = SharedFolder.find(folder._path.name.removeprefix("celerypipe-run-"))
    assert other is not None
    places = (folder, other)
    read: list[tuple[str, int, list[np.ndarray[tuple[int], np.dtype[np.uint8]]]]] = []
    for number in range(400):
        reference = written(dice.choice(places), number % 251)
        views = [np.frombuffer(content_of(place, reference), np.uint8) for place in dice.sample(places, 2)]
        read.append((reference, number % 251, views))
        while len(read) > dice.randrange(1, 12):
            done, byte, views = read.pop(dice.randrange(len(read)))
            assert all(view[0] == view[-1] == byte and (view == byte).all() for view in views)
            views.clear()
            folder.recycle(done)
    assert all(view[0] == view[-1] == byte for _, byte, views in read for view in views)
