"""Source is read by several threads at the same time."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from celerypipe.catalogue import syntax

SOURCE = "\n".join(f"value_{number} = [{number}, ({number}, 'text')]" for number in range(300))


@pytest.fixture
def others_get_their_turn() -> Iterator[None]:
    """While a tree is made, garbage is collected, and code in Python that runs then lets other threads go on."""

    def give_way(*_: object) -> None:
        time.sleep(0)

    before = gc.get_threshold()
    gc.callbacks.append(give_way)
    gc.set_threshold(50)
    yield
    gc.set_threshold(*before)
    gc.callbacks.remove(give_way)


@pytest.mark.usefixtures("others_get_their_turn")
def test_threads_that_read_at_the_same_time_do_not_disturb_each_other() -> None:
    wrong: list[BaseException] = []

    def read(depth: int) -> None:
        if depth:
            read(depth - 1)
            return
        try:
            for _ in range(10):
                syntax.statements(SOURCE)
        except SystemError as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(10 * number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
