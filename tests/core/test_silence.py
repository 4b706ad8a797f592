"""When silence is death: the verdicts, case by case."""

from __future__ import annotations

import pytest

from gonogo.gateway.relay.silence import Silence, is_hung
from gonogo.gateway.relay.upstream import health_of


@pytest.mark.parametrize(
    ("silent_s", "healthy", "begun", "longest_gap_s", "hung"),
    [
        (1.4, False, True, 0.02, False),
        (1.5, False, True, 0.02, True),
        (1.5, False, False, 0.0, True),
        (2.9, None, True, 0.02, False),
        (3.0, None, True, 0.02, True),
        (3.9, True, True, 0.02, False),
        (4.0, True, True, 0.02, True),
        (20.0, True, True, 0.7, False),  # a slow engine whose pauses were long before
        (21.1, True, True, 0.7, True),
        (30.0, True, True, 99.0, True),
        (179.0, True, False, 0.0, False),  # a long prompt is computed
        (180.0, True, False, 0.0, True),
        (179.0, None, False, 0.0, False),
    ],
)
def test_silence_is_death_by_what_else_is_known(
    silent_s: float, healthy: bool | None, begun: bool, longest_gap_s: float, hung: bool
) -> None:
    assert is_hung(Silence(silent_s=silent_s, healthy=healthy, begun=begun, longest_gap_s=longest_gap_s)) is hung


def test_health_is_read_from_envoys_own_list() -> None:
    hosts = [
        {"hostname": "svc/1/0", "health_status": {"eds_health_status": "HEALTHY"}},
        {"hostname": "svc/1/1", "health_status": {"failed_active_health_check": True, "eds_health_status": "HEALTHY"}},
        {"hostname": "svc/1/2", "health_status": {"failed_outlier_check": True}},
        {"address": {}},
    ]
    seen = health_of({"cluster_statuses": [{"name": "svc/1", "host_statuses": hosts}, {"name": "policy"}]})
    assert seen == {"svc/1/0": True, "svc/1/1": False, "svc/1/2": False}
