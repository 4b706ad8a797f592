"""The event chain and its canonical JSON (RFC 8785). Pure."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.security.chain import GENESIS, Draft, Json, canonical, link
from gonogo.security.verify import _json as verifier_json
from gonogo.store.plain import plain

DRAFT = Draft(
    at_ms=1_700_000_000_123,
    actor="control",
    principal="alice",
    request_id=None,
    kind="RevisionAdded",
    service="m",
    revision=1,
    detail={"b": 1, "a": "é"},
)

# RFC 8785, appendix B: the double's bits, and how it is written.
RFC_8785_NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(("bits", "written"), RFC_8785_NUMBERS.items())
def test_numbers_are_written_as_the_rfc_writes_them(bits: str, written: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical(number).decode() == written
    assert verifier_json(number) == written


def test_names_are_sorted_by_utf16_and_text_is_escaped_as_the_rfc_does() -> None:
    names = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    written = '{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"\U0001f600":5,"\ufb33":3}'
    assert canonical(names).decode() == written == verifier_json(names)
    assert canonical('\u20ac$\u000f\nA\'B"\\"/\x7f').decode() == '"\u20ac$\\u000f\\nA\'B\\"\\\\\\"/\x7f"'


@given(JSON_VALUES)
def test_writer_and_verifier_write_every_value_alike_and_nothing_is_lost(value: Json) -> None:
    written = canonical(value).decode()
    assert verifier_json(value) == written
    assert json.loads(written, parse_int=float) == value
    assert verifier_json(json.loads(written)) == written


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53, -(2**53), "\ud800", {1: 2}, {"a": b"x"}, {"\udfff": 1}, object()]
)
def test_what_json_cannot_hold_exactly_is_refused(value: Json) -> None:
    with pytest.raises(ValueError):
        canonical(value)


def test_the_first_event_follows_sixty_four_zeros() -> None:
    event = link(DRAFT, GENESIS)
    assert event.sequence == 1
    assert event.previous_hash == "0" * 64
    assert event.at == 1_700_000_000.123


def test_the_hash_is_that_of_the_canonical_json_of_everything_else() -> None:
    text = (
        '{"actor":"control","at_ms":1700000000123,"detail":{"a":"é","b":1},"kind":"RevisionAdded","previous_hash":"'
        + "0" * 64
        + '","principal":"alice","request_id":null,"revision":1,"sequence":1,"service":"m"}'
    )
    assert link(DRAFT, GENESIS).hash == hashlib.sha256(text.encode()).hexdigest()


def test_each_event_names_the_one_before() -> None:
    first = link(DRAFT, GENESIS)
    second = link(DRAFT, first.head)
    assert (second.sequence, second.previous_hash) == (2, first.hash)
    assert second.hash != first.hash


@pytest.mark.parametrize(
    "other",
    [
        replace(DRAFT, at_ms=DRAFT.at_ms + 1),
        replace(DRAFT, actor="cli"),
        replace(DRAFT, principal="bob"),
        replace(DRAFT, request_id="r"),
        replace(DRAFT, kind="RevisionRejected"),
        replace(DRAFT, service=None),
        replace(DRAFT, revision=2),
        replace(DRAFT, detail={"a": "é", "b": 2}),
    ],
)
def test_every_field_is_under_the_hash(other: Draft) -> None:
    assert link(other, GENESIS).hash != link(DRAFT, GENESIS).hash


def test_odd_values_become_plain_ones_so_that_every_event_can_be_told() -> None:
    odd = {"line": "caf\udce9", "rate": float("nan"), "big": 2**60, "where": ("a", None), 3: True}
    told = plain(odd)
    assert told == {"line": "caf�", "rate": "nan", "big": str(2**60), "where": ["a", None], "3": True}
    canonical(told)
