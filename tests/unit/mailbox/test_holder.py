"""The name of an activation is read as it was written; one that nobody of ours gave says nothing but itself."""

from __future__ import annotations

import pytest

from celerypipe.mailbox.holder import Holder, Process


@pytest.mark.parametrize("host", ["box", "my.far.box", "10.0.0.5", "box-7"])
@pytest.mark.parametrize("token", ["3f2a", "late-token", "a-b-cd", ""])
def test_a_name_is_read_as_it_was_written(host: str, token: str) -> None:
    holder = Holder(Process(host, 4711, "ab12"), token, 3)
    assert Holder.read(str(holder)) == holder
    assert Process.read(str(holder.process)) == holder.process
    assert str(holder.process) == f"{host}.4711.ab12"
    assert holder.process.where == f"{host}, process 4711"


def test_two_that_answer_one_bell_differ() -> None:
    assert Holder(Process("box", 1, "ab"), "token") != Holder(Process("box", 1, "ab"), "token")


def test_an_activation_that_does_not_say_which_worker_it_is_of_has_a_process() -> None:
    assert Holder.read("my.box.1.token.2") == Holder(Process("my.box", 1), "token", 2, nonce="")


@pytest.mark.parametrize("name", ["", "stranger", "r:3f2a", "a.b", "a.b.c.d", "box.x.token-ab-cd.0", "box, process 7"])
def test_what_no_worker_named_is_only_a_name(name: str) -> None:
    assert Holder.read(name).process == Process(name)
    assert Holder.read(name).process.where == Process.read(name).where == name
