"""Keys and signatures by themselves: what they bind, how keys are exchanged, and that nothing shows them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from celerypipe.errors import BadSignature, ConfigError
from celerypipe.redis.signing import Keyring, digest, is_digest_of, refused_bell, signed_bell, strangers
from celerypipe.settings import Settings

OLD, NEW, THIRD = (letter * 16 for letter in ("o", "n", "t"))


def keyring(*keys: str) -> Keyring:
    found = Keyring.parse(",".join(keys))
    assert found is not None
    return found


def test_what_is_signed_holds_for_its_place_only() -> None:
    ours = keyring(OLD)
    signed = ours.signer("message", "run", "node").sign(b"content")
    assert ours.signer("message", "run", "node").unsign(signed) == b"content"
    for place in [("result", "run", "node"), ("message", "other", "node"), ("message", "run", "other")]:
        with pytest.raises(BadSignature):
            ours.signer(*place).unsign(signed)
    # Names that run into each other are other places all the same.
    assert not ours.signer("message", "runn", "ode").verifies(signed)
    assert not ours.signer("message", "run").within("node", "").verifies(signed)


@pytest.mark.parametrize("place", range(0, len(b"content") + 16, 3))
def test_no_byte_of_it_can_be_changed(place: int) -> None:
    signer = keyring(OLD).signer("message", "run", "node")
    signed = bytearray(signer.sign(b"content"))
    signed[place] ^= 1
    assert not signer.verifies(bytes(signed))


@pytest.mark.parametrize("rubbish", [b"", b"short", b"no signature is behind this text"])
def test_what_nobody_signed_is_refused(rubbish: bytes) -> None:
    assert not keyring(OLD).signer("message", "run", "node").verifies(rubbish)


def test_the_first_key_signs_and_all_verify() -> None:
    before, during, after = keyring(OLD), keyring(NEW, OLD), keyring(NEW)
    place = ("message", "run", "node")
    assert during.signer(*place).verifies(before.signer(*place).sign(b""))
    assert after.signer(*place).verifies(during.signer(*place).sign(b""))
    assert not before.signer(*place).verifies(during.signer(*place).sign(b""))
    assert not keyring(THIRD).signer(*place).verifies(before.signer(*place).sign(b""))


def test_keys_can_be_exchanged_while_everything_runs() -> None:
    # On one machine after the other: first the new key is known, then it signs, then the old one goes.
    steps = [keyring(OLD), keyring(OLD, NEW), keyring(NEW, OLD), keyring(NEW)]
    for earlier, later in pairwise(steps):
        assert not strangers(earlier, later.ids)
        assert not strangers(later, earlier.ids)
    assert "first add the new one behind the old one" in strangers(keyring(OLD), keyring(NEW, OLD).ids)
    assert "has other keys" in strangers(keyring(OLD), keyring(THIRD).ids)


def test_who_has_keys_and_who_has_none_are_told_what_to_set() -> None:
    assert strangers(None, []) == ""
    assert "set CELERYPIPE_KEYS here as it is there" in strangers(None, keyring(OLD).ids)
    assert "set CELERYPIPE_KEYS there as it is here" in strangers(keyring(OLD), [])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("secret", "CELERYPIPE_KEYS: the key has 6 bytes; each needs at least 16"),
        (f"{OLD}, secret", "key 2 of 2 has 6 bytes"),
        (f"{OLD},,{NEW}", "key 2 of 3 is empty"),
    ],
)
def test_a_key_that_is_too_short_is_named_and_not_shown(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        Settings.from_environment({"CELERYPIPE_KEYS": text})
    assert "secret" not in str(caught.value).replace("import secrets; print(secrets.", "")
    assert "token_hex" in str(caught.value)


@pytest.mark.parametrize("text", ["", "  "])
def test_without_keys_nothing_is_signed(text: str) -> None:
    assert Settings.from_environment({"CELERYPIPE_KEYS": text}).keyring is None
    assert Settings.from_environment({}).keyring is None


def test_settings_do_not_show_keys() -> None:
    settings = Settings.from_environment({"CELERYPIPE_KEYS": f"{OLD},{NEW}"})
    assert settings.keyring is not None
    assert len(settings.keyring.ids) == 2
    shown = f"{settings} {settings.keyring!r} {vars(settings.keyring)} {settings.keyring.ids}"
    assert OLD not in shown
    assert NEW not in shown


def test_a_task_is_signed_for_its_mark_and_arguments() -> None:
    ours = keyring(OLD)
    bell = ["run", "node", 0, "token"]
    *_, signature = signed_bell(ours, "tasks.gpu.Detect", bell)
    assert refused_bell(ours, "tasks.gpu.Detect", bell, signature) == ""
    assert "altered" in refused_bell(ours, "tasks.gpu.Other", bell, signature)
    for place, other in enumerate(["other", "other", 1, "other"]):
        moved = [*bell[:place], other, *bell[place + 1 :]]
        assert "altered" in refused_bell(ours, "tasks.gpu.Detect", moved, signature)
    for rubbish in ("rubbish", 5, [], signature[:-2], None):
        assert refused_bell(ours, "tasks.gpu.Detect", bell, rubbish)


def test_a_task_without_signature_and_one_that_needs_none_say_what_to_set() -> None:
    bell = ["run", "node", 0, "token"]
    assert signed_bell(None, "mark", bell) == bell
    assert refused_bell(None, "mark", bell) == ""
    assert "it is not signed: set CELERYPIPE_KEYS where its run is started" in refused_bell(keyring(OLD), "mark", bell)
    *_, signature = signed_bell(keyring(OLD), "mark", bell)
    assert "this worker has no keys: set CELERYPIPE_KEYS here" in refused_bell(None, "mark", bell, signature)


def test_a_digest_is_that_of_all_segments_in_a_row() -> None:
    assert is_digest_of(digest([b"one", memoryview(b"two")]), b"onetwo")
    assert not is_digest_of(digest([b"one"]), b"two")
    assert not is_digest_of("", b"two")


def test_what_is_refused_is_counted_and_said_once_for_each_place() -> None:
    refusals = keyring(OLD).refusals
    assert refusals.add("message", "here")
    assert not refusals.add("message", "here", 5)
    assert refusals.add("message", "there")
    assert refusals.add("result", "here")
    assert refusals.counts == {"message": 7, "result": 1}
    assert refusals.total == 8
