"""When silence is death: the verdicts, case by case."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gonogo.gateway.relay.flows import Flows
from gonogo.gateway.relay.machine import Machine, times_longer
from gonogo.gateway.relay.replicas import Replicas, Seen, Wellness, seen_in, wellness
from gonogo.gateway.relay.silence import Alone, Silence, is_hung


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
        (3.4, True, True, True, 0.02, 0.3, False),
        (3.5, True, True, True, 0.02, 0.3, True),
        (3.5, None, None, True, 0.02, 0.3, True),
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


ALONE = Alone(silent_s=2.5, longest_gap_s=0.9)
SEEN = Silence(silent_s=2.6, healthy=True, elsewhere=True, begun=True)
ALL_SILENT = replace(SEEN, alone=ALONE)
PROMPT = replace(SEEN, begun=False, silent_s=3.5)


@pytest.mark.parametrize(
    ("seen", "hung"),
    [
        # The replica's streams are all silent, and nothing else is slow.
        (ALL_SILENT, True),
        (SEEN, False),
        (replace(SEEN, alone=replace(ALONE, silent_s=2.4)), False),
        # Its pauses have been long, of any of its streams.
        (replace(SEEN, alone=replace(ALONE, longest_gap_s=1.3)), False),
        # Few of its pauses are known: a little longer, as a longer one may still come.
        (replace(SEEN, alone=Alone(silent_s=3.4, longest_gap_s=0.3, few_seen=True)), False),
        (replace(SEEN, alone=Alone(silent_s=3.5, longest_gap_s=0.3, few_seen=True)), True),
        (replace(SEEN, alone=Alone(silent_s=3.9, longest_gap_s=0.4, few_seen=True)), False),
        # This stream's own pauses do not matter then, nor how late its first token was; Envoy's verdict neither.
        (replace(ALL_SILENT, longest_gap_s=0.5, first_s=9.0), True),
        (replace(ALL_SILENT, longest_gap_s=0.5, healthy=False), True),
        (replace(ALL_SILENT, elsewhere=False), False),
        # The machine became slow just now.
        (replace(SEEN, silent_s=9.9, slow_machine=True), False),
        (replace(SEEN, silent_s=10.0, slow_machine=True), True),
        # Its prompt may still be computed: not for that, but when the replica was given up in another stream.
        (replace(PROMPT, silent_s=9.0, alone=ALONE), False),
        (replace(PROMPT, silent_s=3.4, given_up=True), False),
        (replace(PROMPT, given_up=True), True),
        (replace(PROMPT, given_up=True, elsewhere=False), False),
    ],
)
def test_what_else_is_quick_makes_the_verdict_quick(seen: Silence, hung: bool) -> None:
    assert is_hung(seen) is hung


def test_health_is_read_from_envoys_own_list() -> None:
    hosts = [
        {
            "hostname": "svc/1/0",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 81}},
            "health_status": {"eds_health_status": "HEALTHY"},
            "stats": [{"name": "cx_active", "value": "9"}, {"name": "rq_active", "type": "GAUGE", "value": "3"}],
        },
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
    seen = {one.name: one for one in seen_in({"cluster_statuses": clusters})}
    assert seen["svc/1/0"] == Seen(name="svc/1/0", revision="svc/1", endpoint="127.0.0.1:81", healthy=True, active=3)
    assert {name: wellness(seen, name) for name in (*seen, "gone/1/0")} == {
        "svc/1/0": Wellness(healthy=True, elsewhere=False),
        "svc/1/1": Wellness(healthy=False, elsewhere=True),
        "svc/1/2": Wellness(healthy=False, elsewhere=True),
        "svc/2/0": Wellness(healthy=True, elsewhere=False),
        "gone/1/0": Wellness(healthy=None, elsewhere=None),
    }


def test_pauses_are_those_of_all_streams_of_a_replica_and_forgotten_after_a_while() -> None:
    flows = Flows()
    flows.gave("svc/1/0", 0.0, None)
    assert flows.longest_gap_s("svc/1/0") == 0.0, "a prompt is no pause"
    flows.gave("svc/1/0", 1.0, 0.4)
    flows.gave("svc/1/0", 2.0, 0.1)
    assert flows.longest_gap_s("svc/1/0") == 0.4 and flows.last("svc/1/0") == 2.0
    flows.gave("svc/1/0", 31.0, 0.2)
    assert flows.longest_gap_s("svc/1/0") == 0.4, "it was not long ago"
    flows.gave("svc/1/0", 62.0, 0.1)
    assert flows.longest_gap_s("svc/1/0") == 0.2
    flows.gave("svc/1/0", 200.0, 0.05)
    assert flows.longest_gap_s("svc/1/0") == 0.05, "nothing was asked of it for two minutes"
    assert (flows.last("svc/1/1"), flows.longest_gap_s("svc/1/1")) == (None, 0.0)


def test_a_replica_is_known_by_many_pauses_of_late() -> None:
    flows = Flows()
    for number in range(100):
        assert not flows.is_known("svc/1/0")
        flows.gave("svc/1/0", number / 10, 0.1)
    assert flows.is_known("svc/1/0") and not flows.is_known("svc/1/1")
    flows.gave("svc/1/0", 31.0, 0.1)
    assert flows.is_known("svc/1/0"), "it was not long ago"
    flows.gave("svc/1/0", 62.0, 0.1)
    assert not flows.is_known("svc/1/0")


def test_a_machine_is_slow_when_a_small_computation_takes_three_times_its_processor_time() -> None:
    measured = iter([2.9, 3.1])
    assert [asyncio.run(Machine(lambda: next(measured)).is_slow()) for _ in range(2)] == [False, True]
    assert times_longer() >= 1.0


def test_a_hung_replica_is_one_for_half_a_minute_or_until_it_speaks_to_anybody() -> None:
    flows = Flows()
    flows.gave("svc/1/0", 1.0, None)
    flows.hangs("svc/1/0", 1.5)
    flows.gave("svc/1/1", 2.0, None)
    assert flows.hung(31.0) == {"svc/1/0"} and flows.hung(32.0) == frozenset()
    flows.gave("svc/1/0", 3.0, 2.0)
    assert flows.hung(3.0) == frozenset()


def test_what_is_remembered_of_replicas_is_bounded() -> None:
    flows = Flows()
    for number in range(2000):
        flows.gave(f"svc/1/{number}", float(number), 0.1)
        flows.hangs(f"svc/1/{number}", 2000.0)
    assert len(flows.hung(2000.0)) == 1024 and flows.last("svc/1/0") is None and flows.last("svc/1/1999") == 1999.0


async def _others(than: tuple[str, ...], rather_not: tuple[str, ...], asked: int = 1) -> list[tuple[str, ...]]:
    active = {"a": 1, "b": 2, "c": 0}
    replicas = Replicas(None)
    replicas._seen = {
        f"svc/1/{name}": Seen(name=f"svc/1/{name}", revision="svc/1", endpoint=name, healthy=name != "c", active=count)
        for name, count in active.items()
    }
    return [await replicas.others("svc/1", than, rather_not) for _ in range(asked)]


def test_a_lost_replica_is_never_named_and_a_hung_one_only_last() -> None:
    assert asyncio.run(_others((), ())) == [("a", "b")], "the one with the fewest requests first, and no sick one"
    assert asyncio.run(_others(("svc/1/a",), ())) == [("b",)]
    assert asyncio.run(_others((), ("svc/1/a",))) == [("b", "a")]
    assert asyncio.run(_others(("svc/1/b",), ("svc/1/a",))) == [("a",)], "better than none"


def test_the_streams_of_a_dead_replica_do_not_all_meet_at_one_other() -> None:
    firsts = [endpoints[0] for endpoints in asyncio.run(_others((), (), asked=5))]
    assert firsts == ["a", "a", "b", "a", "b"]
