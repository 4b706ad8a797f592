"""Values sealed at rest: published vectors, and that nothing altered, cut or moved ever opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.security.sealing import (
    OVERHEAD_BYTES,
    TAG_BYTES,
    DataKey,
    NotAuthentic,
    SealError,
    Truncated,
    UnknownKey,
    place,
    seal,
    unseal,
)

VECTORS = json.loads((Path(__file__).parents[1] / "cases" / "sealing" / "vectors.json").read_text())["vectors"]
KEY = DataKey(key_id="0102030405060708", secret=bytes(range(32)), made_at=0.0, messages=0)
NONCE = bytes(12)
HERE = place("tasks", "t-1", "prompt")


@pytest.mark.parametrize("vector", VECTORS, ids=[one["name"] for one in VECTORS])
def test_what_is_sealed_is_what_the_published_vectors_say(vector: Any) -> None:
    key = DataKey(key_id="00" * 8, secret=bytes.fromhex(vector["key"]), made_at=0.0, messages=0)
    nonce, bound_to = bytes.fromhex(vector["nonce"]), bytes.fromhex(vector["associated"])
    sealed = seal(key, nonce, bytes.fromhex(vector["plain"]), bound_to)
    assert sealed == b"g1" + bytes(8) + nonce + bytes.fromhex(vector["cipher"] + vector["tag"])
    assert unseal(key, sealed, bound_to) == bytes.fromhex(vector["plain"])


@given(st.binary(max_size=200), st.data())
def test_a_value_of_which_one_bit_was_turned_does_not_open(value: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, NONCE, value, HERE))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealError):
        unseal(KEY, bytes(sealed), HERE)


@given(st.binary(max_size=200), st.data())
def test_a_value_that_was_cut_does_not_open(value: bytes, data: st.DataObject) -> None:
    sealed = seal(KEY, NONCE, value, HERE)
    left = data.draw(st.integers(0, len(sealed) - 1))
    with pytest.raises(Truncated if left < OVERHEAD_BYTES else NotAuthentic):
        unseal(KEY, sealed[:left], HERE)


_NAMES = st.text(max_size=6)


@given(st.tuples(_NAMES, _NAMES, _NAMES), st.tuples(_NAMES, _NAMES, _NAMES))
def test_a_value_opens_only_in_the_place_for_which_it_was_sealed(
    here: tuple[str, str, str], there: tuple[str, str, str]
) -> None:
    sealed = seal(KEY, NONCE, b"value", place(*here))
    if here == there:
        assert unseal(KEY, sealed, place(*there)) == b"value"
    else:
        with pytest.raises(NotAuthentic):
            unseal(KEY, sealed, place(*there))


def test_another_key_is_named_by_its_id_and_tells_no_secret() -> None:
    other = DataKey(key_id="ff" * 8, secret=bytes(32), made_at=0.0, messages=0)
    with pytest.raises(UnknownKey, match="0102030405060708"):
        unseal(other, seal(KEY, NONCE, b"value", HERE), HERE)
    assert KEY.secret.hex() not in repr(KEY) and "\\x01\\x02" not in repr(KEY)


def test_what_is_no_envelope_is_said_to_be_none() -> None:
    with pytest.raises(Truncated, match="0 bytes"):
        unseal(KEY, b"", HERE)
    with pytest.raises(Truncated, match="do not begin"):
        unseal(KEY, b"x" * 99, HERE)
    with pytest.raises(ValueError, match="12 bytes"):
        seal(KEY, b"short", b"value", HERE)
    assert len(seal(KEY, NONCE, b"", HERE)) == OVERHEAD_BYTES and TAG_BYTES == 16
