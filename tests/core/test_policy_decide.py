"""Who may, as a table: tests/cases/policy/decide.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Mapping, Sequence

import pytest
import yaml
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from hypothesis import given
from hypothesis import strategies as st

from gonogo.gateway.policy.answers import BROKEN, STALE, UNEXPECTED, refusal
from gonogo.gateway.policy.decide import Caller, RequestHeaders, View, choose, decide
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.rules import ServiceRules
from gonogo.security.keys import RANDOM_BYTES, KeyRow, mint

TABLE = yaml.safe_load((Path(__file__).parent.parent / "cases/policy/decide.yaml").read_text(encoding="utf-8"))
NOW = 1000.0


@dataclass(frozen=True)
class FakeView:
    keys: Mapping[str, KeyRow]
    serving: Mapping[str, int]
    rules: Mapping[str, ServiceRules]
    made_at: Mapping[str, float]


def view(keys: Mapping[str, KeyRow], serving: Mapping[str, int], unknown: Sequence[str] = ()) -> View:
    """Of every revision that serves or that a key is pinned to something is known, but of the `unknown`."""
    serve = {f"{service}/{number}" for service, number in serving.items()}
    names = serve | {f"{key.service}/{key.revision}" for key in keys.values() if key.revision is not None}
    rules = {name: ServiceRules() for name in sorted(names - set(unknown))}
    return FakeView(keys=keys, serving=serving, rules=rules, made_at=dict.fromkeys(rules, 5.0))


NAMES = [*TABLE["keys"], "unknown"]


def bytes_of(name: str) -> bytes:
    return bytes((NAMES.index(name) * 31 + place) % 256 for place in range(RANDOM_BYTES))


MINTED = {name: mint(bytes_of(name)) for name in NAMES}
ROWS = {
    MINTED[name].key_id: KeyRow(
        key_id=MINTED[name].key_id,
        secret_hash=MINTED[name].secret_hash,
        name=name,
        service=fields["service"],
        revision=fields.get("revision"),
        scopes=tuple(fields.get("scopes", ["inference"])),
        created_at=0.0,
        expires_at=fields.get("expires_at"),
        revoked_at=fields.get("revoked_at"),
    )
    for name, fields in TABLE["keys"].items()
}


def key_text(word: str) -> str:
    name, _, how = word.partition(" ")
    text = MINTED[name].text
    if how == "mistyped":
        return text[:-1] + ("0" if text[-1] != "0" else "1")
    if how == "forged":
        # Right id and right checksum, another secret.
        return mint(bytes_of(name)[:7] + bytes(RANDOM_BYTES - 7)).text
    return text


def filled(header: str) -> str:
    return re.sub(r"\{([a-z_ ]+)\}", lambda found: key_text(found[1]), header)


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: f"{case['authorization']} {case.get('path', '')}")
def test_policy_answers_as_the_table_says(case: Mapping[str, Any]) -> None:
    request = RequestHeaders(
        method=case.get("method", "POST"),
        path=case.get("path", "/v1/chat/completions"),
        authorization=tuple(filled(header) for header in case["authorization"]),
        request_id="r",
    )
    seen = view(ROWS, case.get("serving", {"phone": 3}), case.get("unknown", ()))
    decision: Caller | Deny | str = decide(request, seen, NOW)
    if isinstance(decision, Caller):
        assert decision.key.key_id in request.authorization[0]
        assert set(decision.services) == set(case.get("may_use", ["phone"]))
        decision = choose(decision, case.get("model", "phone"))
    if "revision" in case:
        assert decision == case["revision"]
        return
    assert isinstance(decision, Deny), decision
    assert (decision.status, decision.code) == (case["status"], case["code"])
    assert case.get("says", "") in decision.message
    assert not re.search(r"gng_[0-9A-Za-z]{5}", decision.message), "a key stands in the message"


@given(st.lists(st.text(max_size=80), max_size=3), st.text(max_size=40), st.text(max_size=10))
def test_whatever_is_sent_without_a_key_is_refused_and_never_repeated(
    headers: list[str], path: str, method: str
) -> None:
    request = RequestHeaders(method=method, path=path, authorization=tuple(headers), request_id="r")
    decision = decide(request, view(ROWS, {"phone": 3}), NOW)
    assert isinstance(decision, Deny)
    assert decision.status == 401
    assert decision in CONSTANT


CONSTANT = {
    decision
    for headers in ([], ["x"], ["a", "b"], ["Bearer x"], [f"Bearer {key_text('phone mistyped')}"])
    if isinstance(
        decision := decide(
            RequestHeaders(method="GET", path="/", authorization=tuple(headers), request_id=""), view({}, {}), NOW
        ),
        Deny,
    )
}


def test_a_request_never_prints_its_key() -> None:
    request = RequestHeaders(method="GET", path="/", authorization=("Bearer secret",), request_id="r")
    assert "secret" not in repr(request)


@pytest.mark.parametrize(
    "deny",
    [STALE, BROKEN, UNEXPECTED, *sorted(CONSTANT, key=lambda deny: deny.message)],
    ids=lambda deny: deny.message[:40],
)
def test_a_refusal_is_a_plain_message_with_the_three_headers_of_the_envelope(deny: Deny) -> None:
    response = CheckResponse.FromString(refusal(deny))
    denied = response.denied_response
    headers = {option.header.key: option.header.value for option in denied.headers}
    assert response.status.code != 0, "Envoy lets through whatever has status 0"
    assert denied.status.code == deny.status
    assert denied.body == deny.message
    assert (headers["x-gonogo-code"], headers["x-gonogo-type"], headers["x-gonogo-hop"]) == (
        deny.code,
        deny.type,
        "policy",
    )
    assert ("www-authenticate" in headers) == (deny.status == 401)
    assert "x-gonogo-param" not in headers


def test_a_refusal_says_which_field_it_is_about_and_what_the_client_is_to_do() -> None:
    deny = replace(STALE, param="messages[0].content", headers=(("retry-after", "7"),))
    denied = CheckResponse.FromString(refusal(deny)).denied_response
    headers = {option.header.key: option.header.value for option in denied.headers}
    assert (headers["x-gonogo-param"], headers["retry-after"]) == ("messages[0].content", "7")
