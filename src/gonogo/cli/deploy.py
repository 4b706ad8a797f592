"""From a spec to a proven revision: ask control for it, follow what happens, and say how it ended.

`up` and `apply` share it. Not here: what comes after (`handover.py`).
"""

from __future__ import annotations

import getpass
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from gonogo.cli.refusal import BLOCKED, INTERRUPTED, WORLD_DID_NOT_COMPLY, Refusal

if TYPE_CHECKING:
    from gonogo.api.client import ControlClient
    from gonogo.cli.progress import Progress
    from gonogo.cli.session import Session
    from gonogo.spec import Spec

BESIDE_LOADING_S = 180.0
"""Beside what its engine may take to load, so long a command waits for a revision to be proven or rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A proven service: `status` is control's, `service` its entry there, `answers` the service's latest."""

    name: str
    revision: int
    changed: bool
    status: Mapping[str, Any]
    service: Mapping[str, Any]
    answers: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a command asks of control. `started_at` (Unix seconds): when the command began.

    `allow_downtime`: where old and new have no room side by side, the old one may end first.
    """

    spec: Spec
    started_at: float
    allow_downtime: bool = False


@dataclass(slots=True)
class Changes:
    """What this command has changed so far, for whoever interrupts it."""

    session: Session
    told: str = "interrupted.nothing"
    next: str | None = None
    values: Mapping[str, object] | None = None

    def now(self, told: str, next_: str | None, **values: object) -> None:
        """From here on an interruption says this."""
        self.told, self.next, self.values = told, next_, values


@contextmanager
def interruptible(session: Session) -> Iterator[Changes]:
    """Ctrl-C inside says what was changed, and how to go on."""
    changes = Changes(session)
    try:
        yield changes
    except KeyboardInterrupt:
        values = changes.values or {}
        told = {
            "changed": session.told(changes.told, **values),
            "next": session.told(changes.next, **values) if changes.next else None,
        }
        raise Refusal("Interrupted", INTERRUPTED, told) from None


def deploy(session: Session, client: ControlClient, asked: Asked, changes: Changes, progress: Progress) -> Deployed:
    """Ask for a spec and wait until it is proven; one that serves already is proven again.

    Control goes on after the limit. Raises `Refusal`: Blocked (3), RevisionRejected, NotProven, ProbesFailed (4).
    """
    from gonogo.cli.progress import follow_until, newest_sequence
    from gonogo.engines.table import load_limit_s

    after = newest_sequence(client)
    progress.step("progress.checking", service=asked.spec.service)
    before = _entry(client.status(), asked.spec.service)
    accepted = _submit(session, client, asked)
    name, number = str(accepted["service"]), int(accepted["revision"])
    if accepted["changed"]:
        changes.now("interrupted.asked", "interrupted.next", service=name, revision=number)
        progress.step("progress.asked", service=name, revision=number)

    limit_s = load_limit_s(asked.spec) + BESIDE_LOADING_S

    def settled(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
        found = _settled(status, name, number)
        if found is None:
            progress.loading((_entry(status, name) or {"replicas": ()})["replicas"])
        return found

    ended = follow_until(client, progress, settled, after, limit_s)
    if ended is None:
        values = {"service": name, "revision": number, "seconds": limit_s, "phase": _phase(client, name)}
        raise Refusal("NotProven", WORLD_DID_NOT_COMPLY, values)
    if ended["phase"] != "proven":
        raise _rejected(session, client, ended, number)
    if before is not None and before["serving"] == number:
        progress.step("progress.proving_again", service=name, revision=number)
        _prove_again(session, client, name)
    status = client.status()
    return Deployed(
        name=name,
        revision=number,
        changed=bool(accepted["changed"]),
        status=status,
        service=_entry(status, name) or ended,
        answers=answers_of(status, name),
    )


def answers_of(status: Mapping[str, Any], service: str | None) -> tuple[Mapping[str, Any], ...]:
    """The answers about one service (None: all) in control's status."""
    return tuple(one for one in status["answers"] if service is None or one.get("service") in (None, service))


def blocked(session: Session, answers: list[Mapping[str, Any]], told: Mapping[str, Any] | None = None) -> Refusal:
    """Show the checklist of a plan that is blocked; the refusal that says so, with what else is `told` in its JSON."""
    from gonogo.api.report.checklist import blocking, latest
    from gonogo.cli.checklist import print_checklist

    print_checklist(session, answers)
    session.line()
    values = {"count": len(blocking(latest(answers)))}
    return Refusal("Blocked", BLOCKED, values, {**(told or {}), "answers": answers, "changed": False})


def principal() -> str:
    """On whose behalf: the operating system's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have a user without a name
        return "unknown"


def _submit(session: Session, client: ControlClient, asked: Asked) -> Mapping[str, Any]:
    from gonogo.api.client import ControlRefused

    try:
        spec = json.loads(asked.spec.model_dump_json())
        return client.post_spec(spec, principal(), asked.started_at, asked.allow_downtime)
    except ControlRefused as refused:
        if refused.reason == "Blocked":
            raise blocked(session, list(refused.values.get("answers", ()))) from None
        raise


def _prove_again(session: Session, client: ControlClient, name: str) -> None:
    from gonogo.api.report.checklist import blocking, latest
    from gonogo.cli.checklist import print_checklist

    answers = client.check_live(name)
    wrong = blocking(latest(answers))
    if wrong:
        print_checklist(session, answers)
        session.line()
        values = {"count": len(wrong), "service": name}
        raise Refusal("ProbesFailed", WORLD_DID_NOT_COMPLY, values, {"answers": answers})


def _settled(status: Mapping[str, Any], name: str, number: int) -> Mapping[str, Any] | None:
    """The service's entry once its revision is rejected, or proven with every replica there and ready.

    One that was proven before control was started anew may have none yet. Of external replicas one is enough.
    """
    entry = _entry(status, name)
    if entry is None or int(entry["desired"]) != number:
        return None
    if entry["phase"] == "proven":
        mine = [one for one in entry["replicas"] if str(one["id"]).startswith(f"{name}/{number}/")]
        enough = any if any(one["url"] for one in mine) else all
        return entry if mine and enough(one["health"] == "ready" for one in mine) else None
    return entry if entry["phase"] in ("rejected", "blocked") else None


def _entry(status: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((one for one in status["services"] if one["name"] == name), None)


def _phase(client: ControlClient, name: str) -> str:
    entry = _entry(client.status(), name)
    return str(entry["phase"]) if entry else "?"


def _rejected(session: Session, client: ControlClient, entry: Mapping[str, Any], number: int) -> Refusal:
    from gonogo.cli.checklist import print_checklist

    name = str(entry["name"])
    answers = [one for one in answers_of(client.status(), name) if one.get("revision") in (None, number)]
    print_checklist(session, answers)
    session.line()
    why = rejection_text(session, entry.get("rejected"))
    values = {"service": name, "revision": number, "why": why, "serving": entry.get("serving")}
    details = {"answers": answers, "rejected": entry.get("rejected")}
    return Refusal("RevisionRejected", WORLD_DID_NOT_COMPLY, values, details)


def rejection_text(session: Session, rejected: Mapping[str, Any] | None) -> str:
    """Why a revision was rejected, in words: its reason, and the finding's words or the detail as it is."""
    from gonogo.words import finding_text

    if not rejected:
        return "?"
    detail = rejected.get("detail")
    if isinstance(detail, dict):
        values = detail.get("values", detail)
        return f"{rejected['reason']}: {finding_text(str(rejected['reason']), values, session.lang).seen}"
    return f"{rejected['reason']}: {detail}" if detail else str(rejected["reason"])
