"""What policy reads of Envoy's list of clusters (tests/cases/clusters), and how long it believes it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from gonogo.gateway.policy.replicas import STALE_AFTER_S, ReplicaSeen, ReplicaWatch, parse_clusters

FOLDER = Path(__file__).parents[1] / "cases" / "clusters"
CASES = sorted(path for path in FOLDER.glob("*.json") if not path.name.endswith(".expected.json"))
ONE = '{"cluster_statuses":[{"name":"svc/1","host_statuses":[{"address":{"socket_address":{"address":"127.0.0.1","port_value":9}},"health_status":{}}]}]}'  # noqa: E501


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_each_recorded_answer_gives_the_replicas_that_are_expected_of_it(
    path: Path, pytestconfig: pytest.Config
) -> None:
    clusters = parse_clusters(path.read_bytes())
    assert not any(each.waiting or each.cache_used for hosts in clusters.values() for each in hosts), "Envoy cannot say"
    told = ("endpoint", "healthy", "active")
    seen = {name: [{one: asdict(each)[one] for one in told} for each in hosts] for name, hosts in clusters.items()}
    text = json.dumps(seen, indent=1, sort_keys=True) + "\n"
    expected = path.with_suffix(".expected.json")
    if pytestconfig.getoption("--accept"):
        expected.write_text(text)
    assert text == expected.read_text()


@pytest.mark.parametrize("wrong", ["", "no json", "[]", '{"cluster_statuses": 5}', "null"])
def test_what_is_no_such_answer_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError):
        parse_clusters(wrong)


@dataclass
class Admin:
    """An admin socket that answers, or does not; and a clock."""

    answers: list[bytes | Exception]
    now: float = 50.0
    told: list[str] = field(default_factory=list)

    async def fetch(self) -> bytes:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def watch(self) -> ReplicaWatch:
        return ReplicaWatch(self.fetch, lambda: self.now, self.told.append)


def test_what_was_seen_is_believed_for_a_while_and_then_nothing_is_known() -> None:
    admin = Admin([ONE.encode(), OSError("gone"), OSError("gone"), ONE.encode()])
    watch = admin.watch()
    assert watch.of("svc/1") is None
    asyncio.run(watch.look())
    here = (ReplicaSeen(endpoint="127.0.0.1:9", healthy=True, active=0),)
    assert watch.of("svc/1") == here
    assert watch.of("svc/2") is None
    admin.now += STALE_AFTER_S
    asyncio.run(watch.look())
    assert watch.of("svc/1") == here
    admin.now += 0.1
    asyncio.run(watch.look())
    assert watch.of("svc/1") is None
    asyncio.run(watch.look())
    assert watch.of("svc/1") == here
    assert len(admin.told) == 2, "once when it fails, once when it works again"


@pytest.mark.parametrize(
    "answer",
    [
        b"{}{",
        b'{"cluster_statuses":[7]}',
        b'{"cluster_statuses":[{"host_statuses":[{"address":{"socket_address":{}}}]}]}',
        asyncio.TimeoutError(),
    ],
)
def test_an_answer_that_is_none_leaves_what_was_seen(answer: bytes | Exception) -> None:
    admin = Admin([ONE.encode(), answer])
    watch = admin.watch()
    asyncio.run(watch.look())
    asyncio.run(watch.look())
    assert watch.of("svc/1")
    assert len(admin.told) == 1
