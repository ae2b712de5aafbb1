"""A host starts workers in the environments of its list."""

from __future__ import annotations

import pytest

from celerypipe.errors import HostError
from celerypipe.host.manager import Manager
from celerypipe.mailbox.presence import read_presences
from celerypipe.redis.connection import Client
from tests.servers import Workplace
from tests.servers.command import celerypipe
from tests.servers.host import running_host
from tests.servers.wheels import Wheels, wheels

__all__ = ["wheels"]


def test_workers_run_in_an_environment_of_the_list(
    workplace: Workplace, wheels: Wheels, redis_url: str, redis_client: Client
) -> None:
    tables = wheels.table("environments.one", "clash==1") + wheels.table("environments.three", "clash==3")
    allowed = f'[queues.hgpu]\nmost = 2\nenvironments = ["one", "three"]\n[restart]\nattempts = 0\n{tables}'
    workplace.config("hcpu", "")
    with (
        running_host(workplace.folder, redis_url, allowed=allowed, environment=wheels.around) as host,
        Manager(redis_url) as manager,
    ):
        there = manager.hosts[host.name]
        assert there.status().queues == {"hgpu": 2, "hgpu+one": 2, "hgpu+three": 2}
        there.start("hgpu", environment="one")
        assert len([each for each in read_presences(redis_client) if "hgpu+one" in each["queues"]]) == 1
        listed = celerypipe("environments", "ls", "--json", **wheels.around).stdout
        assert '"in_use": true' in listed
        with pytest.raises(HostError, match=r"(?s)environment 'three'.*The builder said last:.*clash==3"):
            there.start("hgpu", environment="three")
