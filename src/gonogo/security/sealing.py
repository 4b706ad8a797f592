"""Values sealed at rest: AES-256-GCM, one envelope each. Pure: the key, the nonce and the place are given.

    "g1" · key id (8 bytes) · nonce (12 bytes) · ciphertext · tag (16 bytes)

The associated data names the place (table, row, column), so that a value that was moved to another one does not open.
Not here: the file that holds the keys, and chance (`keyring`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MARK = b"g1"
KEY_BYTES, KEY_ID_BYTES, NONCE_BYTES, TAG_BYTES = 32, 8, 12, 16
_HEAD_BYTES = len(MARK) + KEY_ID_BYTES + NONCE_BYTES
OVERHEAD_BYTES = _HEAD_BYTES + TAG_BYTES
"""So many bytes more than the value has its envelope."""

MOST_MESSAGES = 2**32
"""Under one key with random 96-bit nonces; more, and two equal ones are too likely (NIST SP 800-38D, 8.3)."""


class SealError(Exception):
    """A sealed value does not open. The text says what was seen and what to do; it never holds the value."""


class Truncated(SealError):
    """Fewer bytes than the smallest envelope has, or none of ours."""


class UnknownKey(SealError):
    """It was sealed with a key that this keyring does not have."""

    def __init__(self, key_id: str, known: int) -> None:
        super().__init__(
            f"the value is sealed with key {key_id}, and the key file holds {known} others: "
            "put back the key file of the time when it was written"
        )
        self.key_id = key_id


class NotAuthentic(SealError):
    """Altered, cut in its middle, or not in the place for which it was sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """One key. `messages`: how many may have been sealed with it, those included that were only reserved."""

    key_id: str
    secret: bytes = field(repr=False)
    made_at: float
    messages: int


def place(table: str, row: str, column: str) -> bytes:
    """The associated data of a value's place. Lengths stand before the names, so that no two places look alike."""
    return "".join(f"{len(name.encode())}:{name}," for name in (table, row, column)).encode()


def seal(key: DataKey, nonce: bytes, value: bytes, bound_to: bytes) -> bytes:
    """The envelope of `value`. `nonce`: 12 bytes that this key has never seen. Raises ValueError for another length."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, this one {len(nonce)}")
    return MARK + bytes.fromhex(key.key_id) + nonce + _cipher(key.secret).encrypt(nonce, value, bound_to)


def key_id_of(sealed: bytes) -> str:
    """Which key it needs. Raises `Truncated`."""
    if len(sealed) < OVERHEAD_BYTES:
        raise Truncated(f"a sealed value of {len(sealed)} bytes is cut off: the smallest has {OVERHEAD_BYTES}")
    if sealed[: len(MARK)] != MARK:
        raise Truncated("these bytes are no sealed value: they do not begin as one")
    return sealed[len(MARK) : len(MARK) + KEY_ID_BYTES].hex()


def unseal(key: DataKey, sealed: bytes, bound_to: bytes) -> bytes:
    """The value in the envelope. Raises `Truncated`, `UnknownKey`, `NotAuthentic`."""
    key_id = key_id_of(sealed)
    if key_id != key.key_id:
        raise UnknownKey(key_id, 1)
    nonce = sealed[len(MARK) + KEY_ID_BYTES : _HEAD_BYTES]
    try:
        return _cipher(key.secret).decrypt(nonce, sealed[_HEAD_BYTES:], bound_to)
    except InvalidTag:
        raise NotAuthentic(
            f"a sealed value of {len(sealed)} bytes was altered, cut, or moved from its place: "
            "put back a copy of the state directory, or send the request again"
        ) from None


@lru_cache(maxsize=64)
def _cipher(secret: bytes) -> AESGCM:
    return AESGCM(secret)
