"""Who may, as a table: tests/cases/policy/decide.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

import pytest
import yaml
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse
from hypothesis import given
from hypothesis import strategies as st

from gonogo.gateway.policy.answers import BROKEN, STALE, UNEXPECTED, answer
from gonogo.gateway.policy.decide import Allow, RequestHeaders, decide
from gonogo.gateway.policy.deny import Deny
from gonogo.security.keys import RANDOM_BYTES, KeyRow, mint

TABLE = yaml.safe_load((Path(__file__).parent.parent / "cases/policy/decide.yaml").read_text(encoding="utf-8"))
NOW = 1000.0


@dataclass(frozen=True)
class FakeView:
    keys: Mapping[str, KeyRow]
    serving: Mapping[str, int]


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
    decision = decide(request, FakeView(keys=ROWS, serving=case.get("serving", {"phone": 3})), NOW)
    if "revision" in case:
        assert isinstance(decision, Allow), decision
        assert decision.revision == case["revision"]
        assert decision.key_id in request.authorization[0]
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
    decision = decide(request, FakeView(keys=ROWS, serving={"phone": 3}), NOW)
    assert isinstance(decision, Deny)
    assert decision.status == 401
    assert decision in CONSTANT


CONSTANT = {
    decide(
        RequestHeaders(method="GET", path="/", authorization=tuple(headers), request_id=""),
        FakeView(keys={}, serving={}),
        NOW,
    )
    for headers in ([], ["x"], ["a", "b"], ["Bearer x"], [f"Bearer {key_text('phone mistyped')}"])
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
    response = ProcessingResponse.FromString(answer(deny)).immediate_response
    headers = {option.header.key: option.header.raw_value.decode() for option in response.headers.set_headers}
    assert response.status.code == deny.status
    assert response.body.decode() == deny.message
    assert (headers["x-gonogo-code"], headers["x-gonogo-type"], headers["x-gonogo-hop"]) == (
        deny.code,
        deny.type,
        "policy",
    )
    assert ("www-authenticate" in headers) == (deny.status == 401)
    assert re.fullmatch("[a-z_]+", response.details)
    assert not response.details.startswith("ext_proc_error")
