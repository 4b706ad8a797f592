"""The tables of metering: usage by span, how far logs were read, and lines that wait for their other half.

The migration that makes them is `migrations._USAGE`.
"""

from __future__ import annotations

import sqlalchemy as sa

from gonogo.store.tables import METADATA

usage = sa.Table(
    "usage",
    METADATA,
    sa.Column("span_s", sa.Integer, primary_key=True),
    sa.Column("at", sa.Integer, primary_key=True),
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("service", sa.Text, primary_key=True),
    *(
        sa.Column(name, sa.Integer, nullable=False)
        for name in ("requests", "prompt_tokens", "completion_tokens", "cached_tokens")
    ),
    *(
        sa.Column(name, sa.Integer, nullable=False)
        for name in ("unmetered", "estimated", "streamed", "retried", "continued")
    ),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("statuses", "outcomes", "histograms")),
)

log_positions = sa.Table(
    "log_positions",
    METADATA,
    sa.Column("log", sa.Text, primary_key=True),
    *(
        sa.Column(name, sa.Integer, nullable=False)
        for name in ("inode", "next_byte", "mark", "lines", "malformed", "gaps")
    ),
)

half_requests = sa.Table(
    "half_requests",
    METADATA,
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("half", sa.Text, primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("since_at", sa.Float, nullable=False),
)
