"""What a pool process may still work on."""

from __future__ import annotations

import math

from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.worker.activation.alarm import Unarmed
from celerypipe.worker.activation.deadman import DeadMan
from celerypipe.worker.activation.keeper import Lease
from celerypipe.worker.activation.quota import Limits, Quota, memory_taken


def test_an_activation_ends_when_it_is_used_up_and_a_pinned_one_goes_on() -> None:
    quota = Quota(Limits(messages=3))
    lease = Lease(Mailbox("run", "node"), 0, "host.1.token.0", Unarmed(DeadMan(None)), quota=quota)
    quota.spend(2)
    assert (quota.left, quota.used_up, lease.must_stop(0.0, 10.0)) == (1, "", "")
    quota.spend(1)
    assert (quota.left, quota.used_up) == (0, "after 3 messages")
    assert lease.must_stop(0.0, 10.0) == lease.beside(Mailbox("run", "other")).must_stop(0.0, 10.0) == "recycle"
    assert lease.must_stop(0.0, math.inf) == ""
    assert lease.keeps_maps
    lease.quota = Quota(Limits(memory=1))
    assert not lease.keeps_maps, "they would count as what its nodes took"


def test_memory_counts_as_the_most_there_ever_was() -> None:
    plenty, little = Quota(Limits(memory=memory_taken() + 1_000_000)), Quota(Limits(memory=memory_taken() - 1))
    plenty.spend(1)
    little.spend(1)
    assert plenty.left == little.left == math.inf
    assert not plenty.used_up
    assert little.used_up.startswith("after 1 messages, since it took ")
