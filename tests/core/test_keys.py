"""API keys: minting, reading, comparing, judging. Pure."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.security.keys import (
    RANDOM_BYTES,
    SECRET_SCANNING_PATTERN,
    KeyProblem,
    KeyRow,
    ParsedKey,
    matches,
    mint,
    parse,
    usable,
    with_other_secret,
)

ROW = KeyRow(
    key_id="0000000001",
    secret_hash="0" * 64,
    name="laptop",
    service=None,
    revision=None,
    scopes=("inference",),
    created_at=1000.0,
    expires_at=2000.0,
    revoked_at=None,
)


@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_what_was_minted_parses_and_matches_its_own_hash(random_bytes: bytes) -> None:
    minted = mint(random_bytes)
    parsed = parse(minted.text)
    assert isinstance(parsed, ParsedKey)
    assert parsed.key_id == minted.key_id
    assert matches(parsed, minted.secret_hash)
    assert re.fullmatch(SECRET_SCANNING_PATTERN, minted.text)


@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES), st.integers(4, 52), st.sampled_from("0aZ9"))
def test_one_mistyped_character_is_told_by_the_checksum(random_bytes: bytes, place: int, typed: str) -> None:
    text = mint(random_bytes).text
    mistyped = text[:place] + typed + text[place + 1 :]
    if mistyped != text:
        assert parse(mistyped) is KeyProblem.CHECKSUM


@pytest.mark.parametrize(
    "text",
    ["", "gng_", "sk-abc", "gng_" + "0" * 48, "gng_" + "0" * 50, "gng_" + "0" * 48 + "é", "gng_" + "0" * 48 + "\n"],
)
def test_what_has_not_our_shape_is_malformed(text: str) -> None:
    assert parse(text) is KeyProblem.MALFORMED


def test_a_very_long_text_is_malformed_and_not_hashed() -> None:
    assert parse("gng_" + "a" * 10_000_000) is KeyProblem.MALFORMED


def test_all_random_bytes_count_in_the_text() -> None:
    texts = {mint(bytes(RANDOM_BYTES)).text}
    texts |= {mint(bytes(i) + b"\x01" + bytes(RANDOM_BYTES - i - 1)).text for i in range(RANDOM_BYTES)}
    assert len(texts) == RANDOM_BYTES + 1


def test_too_few_random_bytes_make_no_key() -> None:
    with pytest.raises(ValueError, match="31 random bytes, got 30"):
        mint(bytes(30))


def test_another_key_with_the_same_id_does_not_match() -> None:
    one, other = mint(b"i" * 7 + b"a" * 24), mint(b"i" * 7 + b"b" * 24)
    parsed = parse(other.text)
    assert isinstance(parsed, ParsedKey)
    assert one.key_id == other.key_id
    assert not matches(parsed, one.secret_hash)


def test_neither_the_text_nor_the_hash_of_a_key_is_printed() -> None:
    minted = mint(bytes(range(RANDOM_BYTES)))
    parsed = parse(minted.text)
    assert minted.text not in repr(minted)
    assert minted.secret_hash not in repr(parsed)
    assert ROW.secret_hash not in repr(ROW)


@pytest.mark.parametrize(
    ("row", "now", "good"),
    [
        (ROW, 1999.9, True),
        (ROW, 2000.0, False),
        (replace(ROW, expires_at=None), 1e12, True),
        (replace(ROW, revoked_at=1500.0), 1600.0, False),
    ],
)
def test_a_key_counts_until_it_expires_or_is_revoked(row: KeyRow, now: float, good: bool) -> None:
    assert usable(row, now) is good


def test_a_clock_set_back_brings_no_revoked_key_to_life() -> None:
    assert not usable(replace(ROW, revoked_at=1500.0), 1400.0)


def test_a_key_with_another_secret_is_well_formed_and_told_apart_by_its_secret_alone() -> None:
    for seed in range(20):
        minted = mint(bytes([seed] * RANDOM_BYTES))
        parsed = parse(with_other_secret(minted.text))
        assert isinstance(parsed, ParsedKey)
        assert parsed.key_id == minted.key_id
        assert not matches(parsed, minted.secret_hash)
