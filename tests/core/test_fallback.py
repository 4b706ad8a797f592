"""A hosted API as fallback: when a request goes there, what is told of it, and what its checks say."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gonogo.checks.catalogue import CHECKS
from gonogo.checks.finding import Answer, Stage
from gonogo.facts.key_file import KeyFileFacts
from gonogo.facts.world import World
from gonogo.gateway.policy.away import headers_for_fallback
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.fallback import FallbackGate, away
from gonogo.gateway.policy.gate import Admitted
from gonogo.gateway.policy.replicas import ReplicaSeen
from gonogo.gateway.policy.request import Request
from gonogo.gateway.policy.rules import FallbackRules, ServiceRules, rules_of
from gonogo.plan.decide import ask, wanted_snapshot
from gonogo.runtimes.look_key_files import look_at_key_files
from gonogo.security.keys import BATCH
from gonogo.spec.fallback import Fallback, api_of
from tests.core import worlds
from tests.core.test_gate_limits import KEY, REQUEST, Inner
from tests.core.worlds import running, service, world

FALLBACK = Fallback(
    url="https://API.example.com/api/paas/v4/",
    model="glm-4.5v",
    key_file="/etc/gonogo/key",
    parameters=("model", "messages", "max_tokens"),
)
TO = FallbackRules(authority="api.example.com", model="glm-4.5v", parameters=FALLBACK.parameters)
RULES = ServiceRules(fallback=TO)
ASKED = replace(REQUEST, fields=("model", "messages", "max_tokens"))
WELL, ILL = (ReplicaSeen(endpoint="127.0.0.1:1", healthy=well, active=0) for well in (True, False))
BEFORE = worlds.revision(1)
ONE = worlds.revision(2, fallback=FALLBACK)


def test_a_request_falls_back_when_no_replica_is_well_and_only_then() -> None:
    assert away(ASKED, KEY, RULES, (ILL, ILL)) == TO
    assert away(ASKED, KEY, RULES, ()) == TO
    assert away(ASKED, KEY, RULES, (ILL, WELL)) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rules": ServiceRules()}, "the spec names no fallback"),
        ({"rules": None}, "there is no such revision any more"),
        ({"seen": None}, "nothing is known of the replicas, and so nothing leaves the house"),
        ({"key": replace(KEY, revision=1)}, "a probe asks whether this revision works"),
        ({"key": replace(KEY, priority=BATCH)}, "what may wait does"),
        ({"request": replace(ASKED, service_tier="flex")}, "what may wait does"),
        ({"request": replace(ASKED, path="/v1/embeddings")}, "vectors of another model are of no use"),
    ],
)
def test_a_request_stays_in_the_house(changes: dict[str, Any], why: str) -> None:
    given = {"request": ASKED, "key": KEY, "rules": RULES, "seen": (ILL,), **changes}
    assert away(given["request"], given["key"], given["rules"], given["seen"]) is None, why


def test_a_field_that_the_list_does_not_name_is_refused_by_name_as_without_a_fallback() -> None:
    refused = away(replace(ASKED, fields=("model", "messages", "seed", "user")), KEY, RULES, (ILL,))
    assert isinstance(refused, Deny)
    assert (refused.status, refused.code, refused.param) == (503, "no_healthy_replica", "seed")
    assert "the field seed" in refused.message
    queried = away(replace(ASKED, has_query=True), KEY, RULES, (ILL,))
    assert isinstance(queried, Deny)
    assert "the query" in queried.message
    assert away(replace(ASKED, fields=("seed",)), KEY, RULES, (WELL,)) is None, "a replica may be asked for it"


class Bench:
    """A gate with one revision, whose replicas die when the test says so."""

    def __init__(self, *seen: ReplicaSeen) -> None:
        self.seen, self.inner = seen, Inner()
        self.gate = FallbackGate(self.inner, lambda _: self.seen, lambda _: RULES)

    def ask(self, request: Request = ASKED) -> Admitted | Deny:
        return asyncio.run(self.gate.admit(request, KEY, "svc/1"))


def test_who_falls_back_waits_for_no_room_and_who_does_not_is_asked_about() -> None:
    down, up = Bench(ILL), Bench(WELL)
    assert (down.ask(), down.inner.asked) == (Admitted(fallback=TO), 0)
    assert (up.ask(), up.inner.asked) == (Admitted(), 1)


def test_a_request_whose_last_replica_dies_while_it_waits_falls_back_too() -> None:
    bench = Bench(WELL)

    class Waits(Inner):
        async def admit(self, request: Request, *_: Any) -> Admitted | Deny:
            bench.seen = (ILL,)
            return Admitted()

    bench.gate = FallbackGate(Waits(), lambda _: bench.seen, lambda _: RULES)
    assert bench.ask() == Admitted(fallback=TO)


def test_a_refusal_of_the_limits_or_of_the_line_is_not_sent_to_others() -> None:
    bench = Bench(WELL)
    full = Deny(status=429, code="overloaded", message="full", type="server_error")
    bench.inner.answer = full
    assert bench.ask() == full


def test_its_stream_is_passed_on_and_never_continued() -> None:
    told = headers_for_fallback(replace(ASKED, stream=True, continuable=True), TO)
    assert told == {
        "x-gonogo-fallback": "api.example.com",
        "x-gonogo-engine": "external",
        "x-gonogo-continue": "no",
        "x-gonogo-relay": "1",
    }
    assert "x-gonogo-relay" not in headers_for_fallback(ASKED, TO)


def test_policy_reads_of_the_spec_what_the_specs_own_class_says() -> None:
    assert rules_of(ONE.spec.model_dump(mode="json")).fallback == TO
    assert rules_of(BEFORE.spec.model_dump(mode="json")).fallback is None


@pytest.mark.parametrize(
    ("url", "base", "authority"),
    [
        ("https://api.example.com", "/v1", "api.example.com"),
        ("https://api.example.com/v1/", "/v1", "api.example.com"),
        ("HTTPS://api.example.com:8443/api/paas/v4", "/api/paas/v4", "api.example.com:8443"),
        ("https://[2001:db8::1]/x", "/x", "[2001:db8::1]"),
    ],
)
def test_a_path_below_a_host_stands_before_each_path_that_is_asked(url: str, base: str, authority: str) -> None:
    api = api_of(url)
    assert (api.base, api.server.authority) == (base, authority)
    assert api_of(api.url) == api


@pytest.mark.parametrize("url", ["http://a.example", "https://a.example/../x", "https://a.example/v1?k=1", "a.example"])
def test_what_is_no_base_url_with_https_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="not "):
        api_of(url)


def test_the_cluster_of_a_revision_carries_the_way_out_and_never_the_key() -> None:
    seen = world(replicas=running("svc/2/0", "svc/2/1"))
    (plan,) = wanted_snapshot((service(ONE, ONE),), seen).clusters
    assert plan.fallback is not None
    assert (plan.fallback.api.url, plan.fallback.key_file) == ("https://api.example.com/api/paas/v4", "/etc/gonogo/key")


def answers(seen: World, stage: Stage) -> dict[str, Answer]:
    return {one.check: one for one in ask(CHECKS, stage, ONE, seen) if one.check.startswith("fallback")}


def files(trouble: str | None, owner_only: bool | None) -> dict[str, KeyFileFacts]:
    return {FALLBACK.key_file: KeyFileFacts(trouble=trouble, owner_only=owner_only)}


@pytest.mark.parametrize(
    ("seen", "reason", "blocks"),
    [
        (files(None, True), "FallbackKeyPrivate", False),
        (files(None, False), "FallbackKeyExposed", True),
        (files("key_file_missing", None), "FallbackKeyUnusable", True),
        (files("key_file_no_key", True), "FallbackKeyUnusable", True),
        ({}, "FallbackKeyUnseen", True),
    ],
)
def test_the_key_must_be_there_and_its_owners_alone(seen: dict[str, KeyFileFacts], reason: str, blocks: bool) -> None:
    found = answers(world(key_files=seen), Stage.PREFLIGHT)["fallback_key"]
    assert (found.finding.reason, found.blocking) == (reason, blocks)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [({ONE.name: True}, "FallbackInUse"), ({ONE.name: False}, "FallbackIdle"), ({}, "FallbackUnknown")],
)
def test_it_is_told_while_requests_leave_the_house(seen: dict[str, bool], reason: str) -> None:
    found = answers(world(key_files=files(None, True), fallen_back=seen), Stage.LIVE)["fallback_in_use"]
    assert (found.finding.reason, found.blocking) == (reason, False)


def test_a_service_without_a_fallback_is_not_asked_about_one() -> None:
    found = {one.check: one for one in ask(CHECKS, Stage.PREFLIGHT, BEFORE, world())}
    assert found["fallback_key"].finding.values == {"why": "NoFallback"}


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        (b"sk-1\n", 0o600, (None, True)),
        (b"sk-1", 0o400, (None, True)),
        (b"sk-1", 0o640, (None, False)),
        (b"sk-1 sk-2", 0o600, ("key_file_no_key", True)),
        ("密钥".encode(), 0o600, ("key_file_no_key", True)),
        (b" \n", 0o600, ("key_file_no_key", True)),
        (b"x" * 5000, 0o600, ("key_file_no_key", True)),
        (None, 0, ("key_file_missing", None)),
    ],
)
def test_a_key_file_is_looked_at_and_its_key_stays_there(
    tmp_path: Path, content: bytes | None, mode: int, expected: tuple[str | None, bool | None]
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    seen = look_at_key_files([str(path)])[str(path)]
    assert (seen.trouble, seen.owner_only) == expected
    assert "sk-1" not in repr(seen)


def test_a_key_that_was_replaced_has_another_stamp(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one")
    before = look_at_key_files([str(path)])[str(path)].stamp
    (tmp_path / "new").write_text("two")
    (tmp_path / "new").rename(path)
    assert look_at_key_files([str(path)])[str(path)].stamp != before
    assert look_at_key_files([str(tmp_path)])[str(tmp_path)].trouble == "key_file_unreadable"
