"""What a policy server must know, and the SQL that reads it. Imports nothing heavy: policy servers start with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Iterable, Mapping

from gonogo.security.keys import KeyRow

VERSION_SQL = "SELECT version FROM policy_version"
KEYS_SQL = (
    "SELECT key_id, secret_hash, name, service, revision, scopes, created_at, expires_at, revoked_at,"
    " requests_per_minute, tokens_per_minute, tokens_per_day, concurrent, priority, acts_for"
    " FROM keys ORDER BY key_id"
)
SERVING_SQL = "SELECT name, serving FROM services WHERE removed = 0 AND serving IS NOT NULL ORDER BY name"
REVISIONS_SQL = (
    "SELECT service, number, made_at, spec FROM revisions WHERE (service, number) IN ("
    "SELECT name, serving FROM services WHERE removed = 0 AND serving IS NOT NULL"
    " UNION SELECT service, revision FROM keys WHERE revision IS NOT NULL AND revoked_at IS NULL"
    ") ORDER BY service, number"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionView:
    """A revision that requests may go to: when it was made (Unix seconds), and its spec as the JSON that is kept."""

    made_at: float
    spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyView:
    """One consistent look: every key by its id (revoked and expired ones too), and which revision serves what.

    `version` grows with each change of either. A service that is to be taken down serves no more. `revisions`: those
    that serve and those that keys are pinned to, by `service/number`.
    """

    version: int
    keys: Mapping[str, KeyRow]
    serving: Mapping[str, int]
    revisions: Mapping[str, RevisionView]


def key_row(row: Iterable[Any]) -> KeyRow:
    """A row in the order of `KEYS_SQL`."""
    key_id, secret_hash, name, service, revision, scopes, created_at, expires_at, revoked_at, *limits = row
    requests_per_minute, tokens_per_minute, tokens_per_day, concurrent, priority, acts_for = limits
    return KeyRow(
        key_id=key_id,
        secret_hash=secret_hash,
        name=name,
        service=service,
        revision=revision,
        scopes=tuple(json.loads(scopes)),
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        tokens_per_day=tokens_per_day,
        concurrent=concurrent,
        priority=priority,
        acts_for=acts_for,
    )


def policy_view(
    version: int,
    key_rows: Iterable[Iterable[Any]],
    serving_rows: Iterable[Iterable[Any]],
    revision_rows: Iterable[Iterable[Any]],
) -> PolicyView:
    """The view made of the rows of `KEYS_SQL`, `SERVING_SQL` and `REVISIONS_SQL`."""
    keys = {key.key_id: key for key in map(key_row, key_rows)}
    serving = {name: number for name, number in serving_rows}  # noqa: C416 (dict() takes SQLAlchemy's result for a mapping)
    revisions = {
        f"{service}/{number}": RevisionView(made_at=made_at, spec=json.loads(spec))
        for service, number, made_at, spec in revision_rows
    }
    return PolicyView(version=version, keys=keys, serving=serving, revisions=revisions)
