"""Keys that act for others: never more than the other may, and never longer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.gateway.policy.decide import Caller, RequestHeaders, decide
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.rules import ServiceRules
from gonogo.security.keys import BATCH, RANDOM_BYTES, KeyRow, acting, mint, usable

NOW = 1000.0
OWNER, CHILD = mint(bytes(RANDOM_BYTES)), mint(bytes([1] * RANDOM_BYTES))


def row(minted: Any, **fields: Any) -> KeyRow:
    given_fields: dict[str, Any] = {
        "key_id": minted.key_id,
        "secret_hash": minted.secret_hash,
        "name": "k",
        "service": "svc",
        "revision": None,
        "scopes": ("inference",),
        "created_at": 0.0,
        "expires_at": None,
        "revoked_at": None,
    }
    return KeyRow(**{**given_fields, **fields})


def child(**fields: Any) -> KeyRow:
    return row(CHILD, **{"expires_at": NOW + 60, "priority": BATCH, "acts_for": OWNER.key_id, **fields})


def asked(*rows: KeyRow) -> Any:
    view = SimpleNamespace(
        keys={one.key_id: one for one in rows}, serving={"svc": 3}, rules={"svc/3": ServiceRules()}, made_at={}
    )
    headers = RequestHeaders(
        method="POST", path="/v1/chat/completions", authorization=(f"Bearer {CHILD.text}",), request_id="r"
    )
    return decide(headers, view, NOW)


def test_what_is_done_with_it_is_the_owners() -> None:
    caller = asked(row(OWNER, requests_per_minute=9), child())
    assert isinstance(caller, Caller) and caller.services == {"svc": "svc/3"}
    assert (caller.key.key_id, caller.key.limits, caller.key.priority) == (
        OWNER.key_id,
        {"requests_per_minute": 9},
        BATCH,
    )


@pytest.mark.parametrize(
    ("owner", "fields", "code"),
    [
        ({"revoked_at": 5.0}, {}, "revoked_api_key"),
        ({"expires_at": NOW}, {}, "expired_api_key"),
        ({}, {"revoked_at": 5.0}, "revoked_api_key"),
        ({}, {"expires_at": NOW}, "expired_api_key"),
        ({"scopes": ("models",)}, {}, "insufficient_scope"),
        ({"acts_for": "other"}, {}, "revoked_api_key"),
    ],
)
def test_it_ends_with_the_owner_and_opens_no_more(owner: Any, fields: Any, code: str) -> None:
    refused = asked(row(OWNER, **owner), child(**fields))
    assert isinstance(refused, Deny) and refused.code == code


def test_without_the_owner_it_is_nothing() -> None:
    refused = asked(child())
    assert isinstance(refused, Deny) and refused.code == "revoked_api_key"


_TIMES = st.none() | st.floats(0, 2 * NOW)
_SCOPES = st.sampled_from([("inference",), ("models",), ("inference", "models")])


@given(_TIMES, _TIMES, _TIMES, _TIMES, _SCOPES, _SCOPES, st.none() | st.integers(1, 9))
def test_no_acting_key_is_allowed_what_its_owner_is_not(
    ends: Any, child_ends: Any, revoked: Any, child_revoked: Any, scopes: Any, child_scopes: Any, limit: int | None
) -> None:
    owner = row(OWNER, expires_at=ends, revoked_at=revoked, scopes=scopes, requests_per_minute=limit)
    stands = acting(child(expires_at=child_ends, revoked_at=child_revoked, scopes=child_scopes), {OWNER.key_id: owner})
    assert stands is not None
    assert set(stands.scopes) <= set(owner.scopes) and stands.service == owner.service
    assert (stands.limits, stands.key_id, stands.priority) == (owner.limits, owner.key_id, BATCH)
    assert not usable(stands, NOW) or usable(owner, NOW)
