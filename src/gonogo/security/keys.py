"""API keys: how one is made, read and judged. Pure: the random bytes and the time are given.

A key is `gng_` + 10 characters of public key id + 33 of secret (192 random bits) + 6 of CRC-32, all in base62. The
checksum tells a mistyped key from an unknown one without a look-up; it proves nothing about who made the key. Only the
SHA-256 of the text is kept: with 192 random bits there is nothing to guess, so a slow hash would only slow requests.

Not here: where keys are kept (`gonogo.store`) and what a request may do with one (`gonogo.gateway.policy`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Mapping

PREFIX = "gng_"
RANDOM_BYTES = 31
"""How many random bytes `mint` needs: 7 for the key id, 24 for the secret."""

SECRET_SCANNING_PATTERN = r"\bgng_[0-9A-Za-z]{49}\b"  # noqa: S105 (a pattern, no secret)
"""Regular expression for secret scanners: whatever it matches and `parse` accepts is a key of ours."""

SCOPES: Mapping[str, str] = {
    "inference": "ask the model: chat, completions, embeddings, and the list of models",
    "models": "see the list of models, nothing else",
    "agents": "with `inference`: leave runs of whole agents on the devices of the gateway's machine",
}
"""The closed list of scopes."""

LIMITS: Mapping[str, str] = {
    "requests_per_minute": "requests let in within any 60 seconds",
    "tokens_per_minute": "prompt and answer tokens within any 60 seconds",
    "tokens_per_day": "prompt and answer tokens within any 24 hours",
    "concurrent": "requests that are being answered at the same time",
}
"""What a key may be limited in: fields of `KeyRow`, whole numbers from 1 to `LARGEST_LIMIT`, None where unlimited."""
LARGEST_LIMIT = 10**12

INTERACTIVE, BATCH = "interactive", "batch"
PRIORITIES: Mapping[str, str] = {
    INTERACTIVE: "somebody waits for the answer",
    BATCH: "it may wait until nothing interactive does",
}

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_BYTES, _ID_LENGTH = 7, 10
_SECRET_LENGTH, _CHECKSUM_LENGTH = 33, 6
_SHAPE = re.compile(r"gng_[0-9A-Za-z]{49}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedKey:
    """A new key. `text` is shown to its owner once and never kept; `repr` hides it."""

    text: str = field(repr=False)
    key_id: str
    secret_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedKey:
    """A well-formed key as a client sent it: the public id to look it up by, and the hash to compare."""

    key_id: str
    secret_hash: str = field(repr=False)


class KeyProblem(str, Enum):
    """malformed: not of our shape at all. checksum: our shape, mistyped or cut."""

    MALFORMED = "malformed"
    CHECKSUM = "checksum"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One key as it is kept. Times are Unix seconds.

    `service` None: good for every service. `revision` set: pinned to that revision of the service, for probes.
    Limits are those of `LIMITS`, `priority` is one of `PRIORITIES`. `acts_for`: the id of the key on whose behalf this
    one is used (`acting`); a worker has it, which runs what that key's owner left in the queue.
    """

    key_id: str
    secret_hash: str = field(repr=False)
    name: str
    service: str | None
    revision: int | None
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrent: int | None = None
    priority: str = INTERACTIVE
    acts_for: str | None = None

    @property
    def limits(self) -> Mapping[str, int]:
        """The limits that it has, by the names of `LIMITS`; empty: unlimited."""
        found = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in found.items() if value is not None}


def mint(random_bytes: bytes) -> MintedKey:
    """A new key out of `RANDOM_BYTES` random bytes. Raises ValueError when the number of bytes is another."""
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"a key needs {RANDOM_BYTES} random bytes, got {len(random_bytes)}")
    key_id = _base62(random_bytes[:_ID_BYTES], _ID_LENGTH)
    body = PREFIX + key_id + _base62(random_bytes[_ID_BYTES:], _SECRET_LENGTH)
    text = body + _checksum(body)
    return MintedKey(text=text, key_id=key_id, secret_hash=_hash(text))


def parse(text: str) -> ParsedKey | KeyProblem:
    """The key in `text`, or what is wrong with it. Nothing is trimmed: the caller has taken off `Bearer `."""
    if _SHAPE.fullmatch(text) is None:
        return KeyProblem.MALFORMED
    body, checksum = text[:-_CHECKSUM_LENGTH], text[-_CHECKSUM_LENGTH:]
    if _checksum(body) != checksum:
        return KeyProblem.CHECKSUM
    return ParsedKey(key_id=text[len(PREFIX) : len(PREFIX) + _ID_LENGTH], secret_hash=_hash(text))


def with_other_secret(text: str) -> str:
    """A well-formed key that nobody made: this one's public id, a secret turned around by one letter, its checksum.

    For probes: it is refused by comparing secrets and by nothing earlier.
    """
    body = text[:-_CHECKSUM_LENGTH]
    turned = _ALPHABET[(_ALPHABET.index(body[-1]) + 1) % len(_ALPHABET)]
    other = body[:-1] + turned
    return other + _checksum(other)


def check_limits(values: Mapping[str, object]) -> None:
    """Whether these limits and this priority can be. Raises ValueError naming the first that cannot."""
    for name, value in values.items():
        if name == "priority":
            if value not in PRIORITIES:
                raise ValueError(f"priority {value!r}: one of {', '.join(PRIORITIES)}")
        elif name not in LIMITS:
            raise ValueError(f"{name}: no limit of a key; those are {', '.join(LIMITS)}")
        elif value is not None and not (type(value) is int and 1 <= value <= LARGEST_LIMIT):
            raise ValueError(f"{name} {value!r}: a whole number from 1 to {LARGEST_LIMIT}, or None")


def matches(parsed: ParsedKey, stored_hash: str) -> bool:
    """Whether this is the key of that hash; takes the same time wherever they differ."""
    return hmac.compare_digest(parsed.secret_hash, stored_hash)


def usable(row: KeyRow, now: float) -> bool:
    """Whether the key still counts at `now` (Unix seconds): neither revoked nor expired.

    A revocation counts at once, whatever its time says: a clock set back must not bring a key to life.
    """
    return row.revoked_at is None and (row.expires_at is None or now < row.expires_at)


def acting(row: KeyRow, keys: Mapping[str, KeyRow]) -> KeyRow | None:
    """Whom a key stands for: itself, or the key that it acts for, which is never allowed more by it.

    That one's id and limits count, with the priority, the end and the narrower scopes of `row`. None: it is gone.
    """
    if row.acts_for is None:
        return row
    owner = keys.get(row.acts_for)
    if owner is None or owner.acts_for is not None:
        return None
    ends = [one.expires_at for one in (row, owner) if one.expires_at is not None]
    revoked = [one.revoked_at for one in (row, owner) if one.revoked_at is not None]
    return replace(
        owner,
        service=owner.service or row.service,
        scopes=tuple(scope for scope in row.scopes if scope in owner.scopes),
        priority=row.priority,
        expires_at=min(ends, default=None),
        revoked_at=min(revoked, default=None),
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")).to_bytes(4, "big"), _CHECKSUM_LENGTH)


def _base62(data: bytes, length: int) -> str:
    """`data` as a number in base62, padded with zeros to `length`."""
    number = int.from_bytes(data, "big")
    characters = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        characters.append(_ALPHABET[digit])
    return "".join(reversed(characters))
