"""The limits of a warped node in its definition."""

from __future__ import annotations

from typing import Any

import pytest

from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import DefinitionError


@pytest.mark.parametrize(
    ("limits", "place"),
    [
        ({"timeout": 1e300}, "warp_configuration.timeout: must be less than or equal to 4000000000"),
        ({"window": 65_537}, "warp_configuration.window: must be less than or equal to 65536, not 65537"),
        ({"parallel": 10**9}, "warp_configuration.parallel: must be less than or equal to 4096, not 1000000000"),
        ({"batch": {"size": 10**6}}, "warp_configuration.batch.size: must be less than or equal to 65536"),
    ],
)
def test_a_definition_asks_for_no_more_than_there_can_be(limits: dict[str, Any], place: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        NodeDefinition(name="n", type="proc", mark="tasks.gpu.Detect", warped=True, warp_configuration=limits)
    assert place in str(caught.value)
