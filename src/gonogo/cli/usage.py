"""`gonogo usage`: requests, tokens and times by key and model, and measured availability. Works without control."""

from __future__ import annotations

import csv as csv_format
import io
import re
import time
from typing import TYPE_CHECKING, Annotated, Any, Mapping, Optional, Sequence

import typer

from gonogo.cli.options import Json, Lang, ServiceName, StateDir, told
from gonogo.cli.refusal import WRONG_INPUT, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.store.store import Store

Since = Annotated[str, typer.Option("--since", metavar="SPAN", help=told("option.since"))]
By = Annotated[
    Optional[str], typer.Option("--by", metavar="minute|hour|day", help=told("option.by"), show_default=False)
]
Csv = Annotated[bool, typer.Option("--csv", help=told("option.csv"), show_default=False)]
COLUMNS = ("requests", "failed", "refused", "prompt_tokens", "completion_tokens")
_TIMES = ("ttft", "per_token")
_SPAN = re.compile(r"(?P<count>[0-9]{1,4})(?P<unit>[mhd])", re.ASCII)
_SECONDS = {"m": 60, "h": 3600, "d": 86400}


def command(  # noqa: PLR0913, PLR0917 (one parameter is one option)
    service: ServiceName = None,
    since: Since = "24h",
    by: By = None,
    csv: Csv = False,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    from gonogo.cli.session import open_session
    from gonogo.cli.stored import existing_store
    from gonogo.monitoring.usage import availabilities, plain

    session = open_session(state_dir, json, lang)
    seconds = span_s(since)
    if by not in (None, "minute", "hour", "day"):
        raise _mistaken("--by", f"{by}: minute, hour, day")
    now = time.time()
    with existing_store(session) as store:
        shown = _lines(store, now, seconds, by)
        measured = plain(availabilities(store, now))
    shown = [one for one in shown if service in (None, one["service"])]
    measured = {name: found for name, found in measured.items() if service in (None, name)}
    if csv:
        session.line(as_csv(shown).rstrip("\n"))
    elif not shown:
        session.say("usage.none", since=since)
    else:
        session.out.print(_table(session, shown, by))
        session.say("usage.legend")
        print_availability(session, measured)
    return Outcome(result={"since": now - seconds, "until": now, "lines": shown, "availability": measured})


def print_availability(session: Session, measured: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """One line for each service and window."""
    from gonogo.words.availability import measured_text

    for service, windows in measured.items():
        session.line()
        session.say("usage.availability", service=service or session.told("usage.no_service"))
        for name, one in windows.items():
            session.line(f"  {name:>4}  {measured_text(one, session.lang)}")


def as_csv(shown: Sequence[Mapping[str, Any]]) -> str:
    """The lines with a heading, one status column for all."""
    names = [name for name in (shown[0] if shown else {"service": "", "key_id": ""}) if name != "statuses"]
    written = io.StringIO()
    writer = csv_format.writer(written, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([["" if one[name] is None else one[name] for name in names] for one in shown])
    return written.getvalue()


def span_s(text: str) -> int:
    """`90m` in seconds. Raises `Refusal` OptionMistaken."""
    found = _SPAN.fullmatch(text)
    if found is None or int(found["count"]) == 0:
        raise _mistaken("--since", f"{text}: 90m, 24h, 30d")
    return int(found["count"]) * _SECONDS[found["unit"]]


def _lines(store: Store, now: float, seconds: int, by: str | None) -> list[dict[str, Any]]:
    from gonogo.monitoring.usage import lines, rows_since, unit_for

    unit = by or unit_for(seconds)
    names = {key.key_id: key.name for key in store.keys()}  # noqa: SIM118 (not a dict)
    found = lines(rows_since(store, unit, now - seconds, now), by_time=by is not None)
    return [{**one.values(), "key": names.get(one.key_id)} for one in found]


def _table(session: Session, shown: Sequence[Mapping[str, Any]], by: str | None) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    left = (*(("at",) if by else ()), "service", "key")
    for name in (*left, *COLUMNS, *_TIMES):
        text = name in left
        table.add_column(
            session.told(f"usage.{name}"), justify="left" if text else "right", no_wrap=not text, overflow="fold"
        )
    for one in shown:
        who = [Text(one["service"] or session.told("usage.no_service")), Text(_key(session, one))]
        when = [_moment(one["at"])] if by else []
        counts = [f"{one[name]:,}" for name in COLUMNS]
        times = [_times(one[f"{name}_p50_ms"], one[f"{name}_p95_ms"]) for name in _TIMES]
        table.add_row(*when, *who, *counts, *times)
    return table


def _key(session: Session, one: Mapping[str, Any]) -> str:
    """Its name; of what has none (a probe, no key, a key that is forgotten) what it is."""
    if one["key"]:
        return str(one["key"])
    return session.told(f"usage.key.{one['key_id'] or 'none'}") if one["key_id"] in ("", "probes") else one["key_id"]


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _times(half: float | None, most: float | None) -> str:
    return "–" if half is None or most is None else f"{half:,.0f} / {most:,.0f}"


def _mistaken(option: str, words: str) -> Refusal:
    return Refusal("OptionMistaken", WRONG_INPUT, {"option": option, "words": words, "command": "gonogo usage"})
