"""The schema, as numbered lists of SQL statements. A list that was released is never edited: a change is a new one.

Times in columns named `*_at` are Unix seconds; the events have integer milliseconds, because they are hashed.
Triggers are the only statements that another database will need in its own words.
"""

from __future__ import annotations

from typing import Sequence

_VERSION_1: Sequence[str] = (
    "CREATE TABLE lease (only_row INTEGER PRIMARY KEY CHECK (only_row = 1),"
    " epoch INTEGER NOT NULL, holder TEXT NOT NULL, since_at REAL NOT NULL)",
    "CREATE TABLE policy_version (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), version INTEGER NOT NULL)",
    "INSERT INTO policy_version (only_row, version) VALUES (1, 1)",
    "CREATE TABLE services (name TEXT PRIMARY KEY, desired INTEGER NOT NULL, serving INTEGER, serving_since_at REAL,"
    " removed INTEGER NOT NULL CHECK (removed IN (0, 1)))",
    "CREATE TABLE revisions (service TEXT NOT NULL, number INTEGER NOT NULL CHECK (number >= 1), digest TEXT NOT NULL,"
    " spec TEXT NOT NULL, made_at REAL NOT NULL, rejected_reason TEXT, rejected_detail TEXT,"
    " PRIMARY KEY (service, number))",
    "CREATE TABLE keys (key_id TEXT PRIMARY KEY, secret_hash TEXT NOT NULL, name TEXT NOT NULL, service TEXT,"
    " revision INTEGER, scopes TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL, revoked_at REAL)",
    "CREATE TABLE answers (id INTEGER PRIMARY KEY, stage TEXT NOT NULL, service TEXT NOT NULL,"
    " revision INTEGER NOT NULL, observation INTEGER NOT NULL, since_at REAL NOT NULL, until_at REAL,"
    " check_name TEXT NOT NULL, condition TEXT NOT NULL, blocks INTEGER NOT NULL, reason TEXT NOT NULL,"
    " verdict TEXT NOT NULL, subject TEXT NOT NULL, value_json TEXT NOT NULL)",
    "CREATE INDEX answers_of_revision ON answers (service, revision, stage, until_at)",
    "CREATE TABLE asked (stage TEXT NOT NULL, service TEXT NOT NULL, revision INTEGER NOT NULL,"
    " observation INTEGER NOT NULL, asked_at REAL NOT NULL, PRIMARY KEY (stage, service, revision))",
    "CREATE TABLE journal (digest TEXT PRIMARY KEY, action TEXT NOT NULL, service TEXT, revision INTEGER,"
    " detail TEXT NOT NULL, epoch INTEGER NOT NULL, started_at REAL NOT NULL, sequence INTEGER NOT NULL)",
    "CREATE TABLE events (sequence INTEGER PRIMARY KEY CHECK (sequence >= 1), at_ms INTEGER NOT NULL,"
    " actor TEXT NOT NULL, principal TEXT NOT NULL, request_id TEXT, kind TEXT NOT NULL, service TEXT,"
    " revision INTEGER, detail TEXT NOT NULL, previous_hash TEXT NOT NULL, hash TEXT NOT NULL UNIQUE)",
    "CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events"
    " BEGIN SELECT RAISE(ABORT, 'events are append-only: no event may be changed'); END",
    "CREATE TRIGGER events_are_not_removed BEFORE DELETE ON events"
    " BEGIN SELECT RAISE(ABORT, 'events are append-only: no event may be removed'); END",
    # INSERT OR REPLACE would remove a row without the trigger above: whatever is inserted must come next in the chain.
    "CREATE TRIGGER events_follow_each_other BEFORE INSERT ON events"
    " WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM events)"
    " OR NEW.previous_hash IS NOT coalesce((SELECT hash FROM events ORDER BY sequence DESC LIMIT 1),"
    " '0000000000000000000000000000000000000000000000000000000000000000')"
    " BEGIN SELECT RAISE(ABORT, 'events are append-only: an event must follow the last one'); END",
)

_VERSION_2: Sequence[str] = ("ALTER TABLE services ADD COLUMN in_place_at REAL",)

# Policy servers of an earlier gonogo that run already go on: they name the columns that they read, and hold no limits.
# One that is started anew from the earlier program refuses the file, and with it everybody, until it is replaced.
_VERSION_3: Sequence[str] = (
    *(
        f"ALTER TABLE keys ADD COLUMN {name} INTEGER CHECK ({name} >= 1)"
        for name in ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrent")
    ),
    "ALTER TABLE keys ADD COLUMN priority TEXT NOT NULL DEFAULT 'interactive' CHECK (priority IN"
    " ('interactive', 'batch'))",
)

# Metering (`usage_tables`).
_USAGE: Sequence[str] = (
    # at: Unix seconds at which the span begins; span 0 is everything since the store was made.
    "CREATE TABLE usage (span_s INTEGER NOT NULL, at INTEGER NOT NULL, key_id TEXT NOT NULL, service TEXT NOT NULL,"
    " requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,"
    " completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, unmetered INTEGER NOT NULL,"
    " estimated INTEGER NOT NULL,"
    " streamed INTEGER NOT NULL, retried INTEGER NOT NULL, continued INTEGER NOT NULL, statuses TEXT NOT NULL,"
    " outcomes TEXT NOT NULL, histograms TEXT NOT NULL, PRIMARY KEY (span_s, at, key_id, service))",
    "CREATE TABLE log_positions (log TEXT PRIMARY KEY, inode INTEGER NOT NULL, next_byte INTEGER NOT NULL,"
    " mark INTEGER NOT NULL, lines INTEGER NOT NULL, malformed INTEGER NOT NULL, gaps INTEGER NOT NULL)",
    "CREATE TABLE half_requests (request_id TEXT NOT NULL, half TEXT NOT NULL CHECK (half IN ('request', 'stream')),"
    " content TEXT NOT NULL, since_at REAL NOT NULL, PRIMARY KEY (request_id, half))",
    "CREATE INDEX half_requests_by_age ON half_requests (since_at)",
)

_ACTING_KEYS: Sequence[str] = ("ALTER TABLE keys ADD COLUMN acts_for TEXT",)

MIGRATIONS: Sequence[Sequence[str]] = (_VERSION_1, _VERSION_2, _VERSION_3, _USAGE, _ACTING_KEYS)
"""`MIGRATIONS[n]` leads from schema version n to n + 1."""

SCHEMA_VERSION = len(MIGRATIONS)
