"""Findings as they are kept: for each stage and revision what is known, since when, and what was known before.

Only changes are kept: an answer that is given again adds nothing. History is bounded, see the two limits.
"""

from __future__ import annotations

import json
from typing import Any, Mapping, NamedTuple, Sequence

import sqlalchemy as sa

from gonogo.checks.finding import Answer, Condition, Finding, Stage, Verdict
from gonogo.security.chain import Json, canonical
from gonogo.store import tables as t
from gonogo.store.plain import plain_mapping, plain_text
from gonogo.store.records import KeptAnswer

KEPT_PAST_ANSWERS = 200
"""How many answers that are no longer given are kept for each stage and revision."""

KEPT_REVISIONS = 20
"""Of how many revisions of a service, the newest ones, answers are kept."""

REFRESH_S = 60.0
"""Unchanged answers refresh `asked_at` no more often than this: an idle service writes once a minute."""

_SHOWN_CHANGES = 50


class Asking(NamedTuple):
    """Which stage of which revision was asked."""

    stage: Stage
    service: str
    revision: int


class _Content(NamedTuple):
    """What makes two answers the same answer."""

    check_name: str
    condition: str
    blocks: int
    reason: str
    verdict: str
    subject: str
    value_json: str


def keep(
    connection: sa.Connection, asking: Asking, observation: int, answers: Sequence[Answer], now: float
) -> list[Json]:
    """Make `answers` the current ones of their stage and revision. Returns what changed beyond mere numbers."""
    given = {_content(answer): None for answer in answers}
    current = _current(connection, asking)
    gone = [content for content in current if content not in given]
    new = [content for content in given if content not in current]
    if gone or new:
        _end(connection, [current[content] for content in gone], now)
        for content in new:
            row = {**asking._asdict(), **content._asdict(), "observation": observation, "since_at": now}
            connection.execute(sa.insert(t.answers).values({**row, "stage": asking.stage.value}))
        _prune(connection, asking)
    _refresh(connection, asking, observation, now, changed=bool(gone or new))
    return _told(gone, new)


def kept(
    connection: sa.Connection, service: str, revision: int | None, stage: Stage | None, *, past: bool
) -> tuple[KeptAnswer, ...]:
    """Current answers in the order in which they were first given; with `past` the earlier ones too."""
    a, asked = t.answers, t.asked
    join = a.outerjoin(
        asked, sa.and_(asked.c.stage == a.c.stage, asked.c.service == a.c.service, asked.c.revision == a.c.revision)
    )
    query = sa.select(a, asked.c.asked_at).select_from(join).where(a.c.service == service).order_by(a.c.id)
    if revision is not None:
        query = query.where(a.c.revision == revision)
    if stage is not None:
        query = query.where(a.c.stage == stage.value)
    if not past:
        query = query.where(a.c.until_at.is_(None))
    return tuple(_kept_answer(row) for row in connection.execute(query).mappings())


def _content(answer: Answer) -> _Content:
    finding = answer.finding
    return _Content(
        check_name=answer.check,
        condition=answer.condition.value,
        blocks=int(answer.blocks),
        reason=finding.reason,
        verdict=finding.verdict.value,
        subject=plain_text(finding.subject),
        value_json=canonical(plain_mapping(finding.values)).decode("utf-8"),
    )


def _current(connection: sa.Connection, asking: Asking) -> dict[_Content, int]:
    columns = [t.answers.c[name] for name in _Content._fields]
    query = sa.select(t.answers.c.id, *columns).where(_of(asking), t.answers.c.until_at.is_(None))
    return {_Content(*row[1:]): row[0] for row in connection.execute(query)}


def _end(connection: sa.Connection, gone_ids: Sequence[int], now: float) -> None:
    for answer_id in gone_ids:
        connection.execute(sa.update(t.answers).where(t.answers.c.id == answer_id).values(until_at=now))


def _prune(connection: sa.Connection, asking: Asking) -> None:
    past = sa.select(t.answers.c.id).where(_of(asking), t.answers.c.until_at.is_not(None))
    too_old = past.order_by(t.answers.c.id.desc()).offset(KEPT_PAST_ANSWERS)
    connection.execute(sa.delete(t.answers).where(t.answers.c.id.in_(too_old)))
    oldest = asking.revision - KEPT_REVISIONS
    for table in (t.answers, t.asked):
        connection.execute(sa.delete(table).where(table.c.service == asking.service, table.c.revision <= oldest))


def _refresh(connection: sa.Connection, asking: Asking, observation: int, now: float, *, changed: bool) -> None:
    asked = t.asked
    this = sa.and_(
        asked.c.stage == asking.stage.value, asked.c.service == asking.service, asked.c.revision == asking.revision
    )
    before = connection.execute(sa.select(asked.c.asked_at).where(this)).scalar_one_or_none()
    if before is None:
        row = {"stage": asking.stage.value, "service": asking.service, "revision": asking.revision}
        connection.execute(sa.insert(asked).values(**row, observation=observation, asked_at=now))
        return
    if changed or not before <= now < before + REFRESH_S:  # a clock set back refreshes too
        connection.execute(sa.update(asked).where(this).values(observation=observation, asked_at=now))


def _told(gone: Sequence[_Content], new: Sequence[_Content]) -> list[Json]:
    """Reasons and verdicts that came or went, not those where only numbers moved; at most 50."""
    before, after = set(map(_judgement, gone)), set(map(_judgement, new))
    changes: list[Json] = []
    for now_given, judgements in ((False, before - after), (True, after - before)):
        for check, reason, verdict, subject in sorted(judgements):
            changes.append(
                {"check": check, "reason": reason, "verdict": verdict, "subject": subject, "given": now_given}
            )
    return changes[:_SHOWN_CHANGES]


def _judgement(content: _Content) -> tuple[str, str, str, str]:
    return content.check_name, content.reason, content.verdict, content.subject


def _of(asking: Asking) -> sa.ColumnElement[bool]:
    a = t.answers
    return sa.and_(a.c.stage == asking.stage.value, a.c.service == asking.service, a.c.revision == asking.revision)


def _kept_answer(row: Mapping[Any, Any]) -> KeptAnswer:
    finding = Finding(
        reason=row["reason"],
        verdict=Verdict(row["verdict"]),
        subject=row["subject"],
        values=json.loads(row["value_json"]),
    )
    answer = Answer(
        check=row["check_name"],
        condition=Condition(row["condition"]),
        stage=Stage(row["stage"]),
        blocks=bool(row["blocks"]),
        finding=finding,
    )
    return KeptAnswer(
        service=row["service"],
        revision=row["revision"],
        observation=row["observation"],
        since=row["since_at"],
        until=row["until_at"],
        asked_at=row["asked_at"],
        answer=answer,
    )
