"""The tables as SQLAlchemy Core sees them, for queries. `migrations.py` makes them; a test holds both together."""

from __future__ import annotations

import sqlalchemy as sa

from gonogo.security.keys import LIMITS

METADATA = sa.MetaData()

lease = sa.Table(
    "lease",
    METADATA,
    sa.Column("only_row", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("since_at", sa.Float, nullable=False),
)

policy_version = sa.Table(
    "policy_version",
    METADATA,
    sa.Column("only_row", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)

services = sa.Table(
    "services",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("desired", sa.Integer, nullable=False),
    sa.Column("serving", sa.Integer),
    sa.Column("serving_since_at", sa.Float),
    sa.Column("removed", sa.Integer, nullable=False),
    sa.Column("in_place_at", sa.Float),
)

revisions = sa.Table(
    "revisions",
    METADATA,
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("rejected_reason", sa.Text),
    sa.Column("rejected_detail", sa.Text),
)

keys = sa.Table(
    "keys",
    METADATA,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("secret_hash", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("service", sa.Text),
    sa.Column("revision", sa.Integer),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
    *(sa.Column(name, sa.Integer) for name in LIMITS),
    sa.Column("priority", sa.Text, nullable=False),
    sa.Column("acts_for", sa.Text),
)

answers = sa.Table(
    "answers",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("observation", sa.Integer, nullable=False),
    sa.Column("since_at", sa.Float, nullable=False),
    sa.Column("until_at", sa.Float),
    sa.Column("check_name", sa.Text, nullable=False),
    sa.Column("condition", sa.Text, nullable=False),
    sa.Column("blocks", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("value_json", sa.Text, nullable=False),
)

asked = sa.Table(
    "asked",
    METADATA,
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("observation", sa.Integer, nullable=False),
    sa.Column("asked_at", sa.Float, nullable=False),
)

journal = sa.Table(
    "journal",
    METADATA,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("service", sa.Text),
    sa.Column("revision", sa.Integer),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
)

events = sa.Table(
    "events",
    METADATA,
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("at_ms", sa.Integer, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("service", sa.Text),
    sa.Column("revision", sa.Integer),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("previous_hash", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
)
