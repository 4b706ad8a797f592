"""When silence is death: the verdicts, case by case."""

from __future__ import annotations

import pytest

from gonogo.gateway.relay.silence import Silence, is_hung
from gonogo.gateway.relay.upstream import Wellness, health_of


@pytest.mark.parametrize(
    ("silent_s", "healthy", "elsewhere", "begun", "gap_s", "first_s", "hung"),
    [
        # Envoy's health checks fail, and another replica is well.
        (1.4, False, True, True, 0.02, 0.3, False),
        (1.5, False, True, True, 0.02, 0.3, True),
        (1.5, False, True, False, 0.0, 0.0, True),
        (6.9, False, True, True, 0.7, 0.3, False),
        (7.0, False, True, True, 0.7, 0.3, True),
        # No other replica is well: moving would win nothing.
        (100.0, False, False, True, 0.02, 0.3, False),
        (100.0, True, False, True, 0.02, 0.3, False),
        (180.0, False, False, True, 0.02, 0.3, True),
        # It is healthy, or nobody knows.
        (3.9, True, True, True, 0.02, 0.3, False),
        (4.0, True, True, True, 0.02, 0.3, True),
        (4.0, None, None, True, 0.02, 0.3, True),
        (20.0, True, True, True, 0.7, 0.3, False),
        (21.1, True, True, True, 0.7, 0.3, True),
        (11.0, True, True, True, 0.0, 6.0, False),
        (12.0, True, True, True, 0.0, 6.0, True),
        (60.0, True, True, True, 99.0, 0.3, True),
        # A long prompt is computed.
        (179.0, True, True, False, 0.0, 0.0, False),
        (180.0, True, True, False, 0.0, 0.0, True),
        (179.0, None, None, False, 0.0, 0.0, False),
    ],
)
def test_silence_is_death_by_what_else_is_known(
    silent_s: float,
    healthy: bool | None,
    elsewhere: bool | None,
    begun: bool,
    gap_s: float,
    first_s: float,
    hung: bool,
) -> None:
    seen = Silence(
        silent_s=silent_s,
        healthy=healthy,
        elsewhere=elsewhere,
        begun=begun,
        longest_gap_s=gap_s,
        first_s=first_s,
    )
    assert is_hung(seen) is hung


def test_health_is_read_from_envoys_own_list() -> None:
    hosts = [
        {"hostname": "svc/1/0", "health_status": {"eds_health_status": "HEALTHY"}},
        {"hostname": "svc/1/1", "health_status": {"failed_active_health_check": True, "eds_health_status": "HEALTHY"}},
        {"hostname": "svc/1/2", "health_status": {"failed_outlier_check": True}},
        {"address": {}},
    ]
    alone = [{"hostname": "svc/2/0", "health_status": {}}]
    clusters = [
        {"name": "svc/1", "host_statuses": hosts},
        {"name": "svc/2", "host_statuses": alone},
        {"name": "policy"},
    ]
    assert health_of({"cluster_statuses": clusters}) == {
        "svc/1/0": Wellness(healthy=True, elsewhere=False),
        "svc/1/1": Wellness(healthy=False, elsewhere=True),
        "svc/1/2": Wellness(healthy=False, elsewhere=True),
        "svc/2/0": Wellness(healthy=True, elsewhere=False),
    }
