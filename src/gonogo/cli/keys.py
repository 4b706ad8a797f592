"""`gonogo keys create|list|change|revoke`: straight in the store, without control; they count within a second."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Iterator, Optional

import typer

from gonogo.cli.key_limits import (
    Concurrent,
    Priority,
    RequestsPerMinute,
    TokensPerDay,
    TokensPerMinute,
    limits_asked,
    limits_told,
)
from gonogo.cli.options import Json, Lang, StateDir, told
from gonogo.cli.refusal import WRONG_INPUT, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.security.keys import KeyRow
    from gonogo.store.store import Store

Name = Annotated[str, typer.Option("--name", metavar="NAME", help=told("option.key_name"))]
Service = Annotated[
    Optional[str], typer.Option("--service", metavar="SERVICE", help=told("option.key_service"), show_default=False)
]
Scopes = Annotated[
    Optional[list[str]], typer.Option("--scope", metavar="SCOPE", help=told("option.scope"), show_default=False)
]
Expires = Annotated[
    Optional[str], typer.Option("--expires", metavar="TIME", help=told("option.expires"), show_default=False)
]
Key = Annotated[str, typer.Argument(metavar="KEY", help=told("argument.key"), show_default=False)]
All = Annotated[bool, typer.Option("--all", help=told("option.all_keys"), show_default=False)]
DEFAULT_SCOPES = ("inference", "models")
_SPAN = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def application() -> typer.Typer:
    """The verbs under `keys`."""
    made = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    made.command("create", help=told("keys.create"))(create)
    made.command("list", help=told("keys.list"))(list_keys)
    made.command("change", help=told("keys.change"))(change)
    made.command("revoke", help=told("keys.revoke"))(revoke)
    return made


def create(  # noqa: PLR0913, PLR0917 (one parameter is one option)
    name: Name = "key",
    service: Service = None,
    scope: Scopes = None,
    expires: Expires = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    tokens_per_day: TokensPerDay = None,
    concurrent: Concurrent = None,
    priority: Priority = None,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    """Only the key goes to standard output, so that `$(gonogo keys create)` is the key."""
    from gonogo.cli.keyring import add_key
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang)
    scopes = _scopes(scope)
    expires_at = None if expires is None else time.time() + _span_s(expires)
    limits = limits_asked(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        tokens_per_day=tokens_per_day,
        concurrent=concurrent,
        priority=priority,
    )
    with _store(session) as store:
        text, row = add_key(store, name=name, service=service, scopes=scopes, expires_at=expires_at, **limits)
    session.line(text)
    if not json:
        told_line = session.told("keys.created", name=row.name, key_id=row.key_id, service=service or "*")
        session.err.print(told_line, markup=False)
    return Outcome(result={"api_key": text, **_plain(row, time.time())})


def list_keys(everything: All = False, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    """Those that people made; `--all`: also those that gonogo made for itself, which act for one of them or probe."""
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang)
    with _store(session) as store:
        known = list(store.keys())
    rows = [row for row in known if everything or _own(row)]
    now, hidden = time.time(), len(known) - len(rows)
    if not rows:
        session.say("keys.none")
    else:
        session.out.print(_table(session, rows, now, everything))
    if hidden:
        session.say("keys.hidden", count=hidden)
    return Outcome(result={"keys": [_plain(row, now) for row in rows], "hidden": hidden})


def change(  # noqa: PLR0913, PLR0917 (one parameter is one option)
    key: Key,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    tokens_per_day: TokensPerDay = None,
    concurrent: Concurrent = None,
    priority: Priority = None,
    state_dir: StateDir = None,
    json: Json = False,
    lang: Lang = None,
) -> Outcome:
    """What no option names stays as it is."""
    from gonogo.cli.deploy import principal
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang)
    limits = limits_asked(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        tokens_per_day=tokens_per_day,
        concurrent=concurrent,
        priority=priority,
    )
    if not limits:
        raise Refusal("KeyUnchanged", WRONG_INPUT, {})
    with _store(session) as store:
        row = _chosen(key, store)
        with store.change(epoch=None, actor="cli", principal=principal()) as change:
            change.change_key(row.key_id, limits)
        (row,) = (one for one in store.keys() if one.key_id == row.key_id)  # noqa: SIM118 (not a dict)
    session.say("keys.changed", name=row.name, key_id=row.key_id, limits=limits_told(session, row))
    return Outcome(result=_plain(row, time.time()))


def revoke(key: Key, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    from gonogo.cli.deploy import principal
    from gonogo.cli.session import open_session

    session = open_session(state_dir, json, lang)
    with _store(session) as store:
        row = _chosen(key, store)
        with store.change(epoch=None, actor="cli", principal=principal()) as change:
            change.revoke_key(row.key_id)
    session.say("keys.revoked", name=row.name, key_id=row.key_id)
    return Outcome(result={"key_id": row.key_id, "name": row.name, "revoked": True})


@contextmanager
def _store(session: Session) -> Iterator[Store]:
    from gonogo.runtimes.paths import UnsafeDirectory
    from gonogo.store import open_store

    try:
        session.paths.make()
    except (OSError, UnsafeDirectory) as error:
        raise Refusal("StateUnusable", 4, {"words": str(error), "remedy": "--state-dir DIR"}) from None
    store = open_store(session.paths.database, clock=time.time)
    try:
        yield store
    finally:
        store.close()


def _scopes(asked: list[str] | None) -> tuple[str, ...]:
    from gonogo.security.keys import SCOPES

    for scope in asked or ():
        if scope not in SCOPES:
            raise Refusal("NotAKeyOption", WRONG_INPUT, {"option": "--scope", "given": scope, "allowed": list(SCOPES)})
    return tuple(dict.fromkeys(asked)) if asked else DEFAULT_SCOPES


def _span_s(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if found is None or int(found["count"]) == 0:
        values = {"option": "--expires", "given": text, "allowed": "30d, 12h, 90m, 60s"}
        raise Refusal("NotAKeyOption", WRONG_INPUT, values)
    return int(found["count"]) * _SECONDS[found["unit"]]


def _chosen(asked: str, store: Store) -> KeyRow:
    """By id, or by the name of one live key. A whole key that somebody pasted is understood too."""
    from gonogo.security.keys import ParsedKey, parse

    parsed = parse(asked)
    key_id = parsed.key_id if isinstance(parsed, ParsedKey) else asked
    rows = store.keys()
    for row in rows:
        if row.key_id == key_id:
            return row
    named = [row for row in rows if row.name == asked and row.revoked_at is None]
    live = [row for row in named if _own(row)]
    if len(live) == 1:
        return live[0]
    shown = "…" if isinstance(parsed, ParsedKey) else asked
    if live:
        raise Refusal("KeyAmbiguous", WRONG_INPUT, {"asked": shown, "known": [row.key_id for row in live]})
    raise Refusal("KeyUnknown", WRONG_INPUT, {"asked": shown})


def _own(row: KeyRow) -> bool:
    """Whether a person made it: not one of the queue, of an agent's run or of a probe."""
    return row.revision is None and row.acts_for is None


def _state(row: KeyRow, now: float) -> str:
    from gonogo.security.keys import usable

    if row.revoked_at is not None:
        return "revoked"
    return "live" if usable(row, now) else "expired"


def _plain(row: KeyRow, now: float) -> dict[str, Any]:
    from gonogo.security.keys import LIMITS

    return {
        "key_id": row.key_id,
        "name": row.name,
        "service": row.service,
        "scopes": list(row.scopes),
        "state": _state(row, now),
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "limits": {name: getattr(row, name) for name in LIMITS},
        "priority": row.priority,
        "acts_for": row.acts_for,
        "revision": row.revision,
    }


def _table(session: Session, rows: list[KeyRow], now: float, everything: bool) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    names = ("id", "name", "state", "service", "scopes", "limits", "created_at", "acts_for")
    for name in names if everything else names[:-1]:
        table.add_column(session.told(f"keys.{name}"), no_wrap=name in ("id", "scopes", "limits", "created_at"))
    for row in rows:
        state = _state(row, now)
        created = time.strftime("%Y-%m-%d", time.localtime(row.created_at))
        style = {"live": "green", "revoked": "red"}.get(state, "yellow")
        shown = Text(session.told(f"keys.state.{state}"), style=style)
        limits, scopes = limits_told(session, row, "\n"), "\n".join(row.scopes)
        whose = (row.acts_for or "",) if everything else ()
        table.add_row(row.key_id, Text(row.name), shown, Text(row.service or "*"), scopes, limits, created, *whose)
    return table
