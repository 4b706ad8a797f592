"""A model for whoever needs one: found whole without asking anybody, else planned, told, asked for and fetched."""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator

import typer

from gonogo.cli.fit_model import MISTAKES, SILENCE
from gonogo.cli.model_wish import MODEL_SCOPE, ModelWish
from gonogo.cli.models_page import duration_text, plan_lines, size_text
from gonogo.cli.progress import Progress
from gonogo.cli.refusal import BLOCKED, INTERRUPTED, WORLD_DID_NOT_COMPLY, WRONG_INPUT, Refusal
from gonogo.runtimes.models import Fetched, ModelFault, ModelStore

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.runtimes.fetch_plan import FetchOrder, FetchPlan

AWAY = ("hub_unreachable", "hub_broken", "rate_limited")
STOPPED = ("ModelDiskTooSmall",)
WRONG = ("ModelNotFetched",)
RATE_OVER_S, QUIET_S = 10.0, 2.0
WHOLE_COMMIT = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where to fetch from: `endpoint` as `endpoint_of` gives it, `given` as it was written; which revision."""

    endpoint: str | None = None
    given: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtained:
    """The model (None: the user said no), whether it was fetched now, and by which plan (None: it was here)."""

    model: Fetched | None
    now: bool
    plan: FetchPlan | None = None


def fetched(session: Session, wish: ModelWish, source: Source) -> Obtained:
    """The wanted model, whole, on this machine. Raises Refusal: not to be had, not usable, no room, interrupted."""
    if wish.folder is not None:
        return Obtained(model=_in_place(session, wish), now=False)
    store = ModelStore(session.paths.models)
    found = _whole(store, wish, source.revision)
    if found is not None:
        return Obtained(model=found, now=False)
    order = _order(wish, source)
    with refusals(wish, source, order):
        plan = _planned(session, store, order)
        found = store.find(order.model, plan.commit, order.only)
        if found is not None:
            return Obtained(model=found, now=False, plan=plan)
        for line in plan_lines(session, plan, store):
            session.line(line)
        if session.asks and not typer.confirm(session.told("ask.apply")):
            session.say("nothing_changed")
            return Obtained(model=None, now=False, plan=plan)
        try:
            model, now = _fetch(session, store, plan)
        except KeyboardInterrupt:
            raise _interrupted(session, store, plan, _again(wish, source)) from None
    return Obtained(model=model, now=now, plan=plan)


@contextmanager
def refusals(wish: ModelWish, source: Source, order: FetchOrder) -> Iterator[None]:
    """What could not be done becomes a refusal, with the command that goes on or goes elsewhere."""
    try:
        yield
    except ModelFault as fault:
        kind = fault.values.get("kind")
        values = {**{name: value for name, value in fault.values.items() if value is not None}, "model": order.model}
        values["command"] = _again(wish, source)
        if kind in AWAY and order.model != wish.modelscope and wish.modelscope is not None and _hugging_face(source):
            there = f"gonogo models fetch {wish.command} --from {MODEL_SCOPE}"
            raise Refusal(
                "ModelHubAway", WORLD_DID_NOT_COMPLY, {**values, "id": wish.modelscope, "command": there}
            ) from None
        raise Refusal(fault.reason, exit_code_of(fault), values) from None


def exit_code_of(fault: ModelFault) -> int:
    """Whether it is the user's mistake, a finding that stops, or the world that did not comply."""
    kind = fault.values.get("kind")
    if kind in MISTAKES or fault.reason in WRONG:
        return WRONG_INPUT
    return BLOCKED if fault.reason in STOPPED or (kind is not None and kind not in SILENCE) else WORLD_DID_NOT_COMPLY


def _whole(store: ModelStore, wish: ModelWish, revision: str | None) -> Fetched | None:
    """Without the network: a branch or tag may have moved, and only the hub knows."""
    if revision is not None and len(revision) < WHOLE_COMMIT:
        return None
    found = (store.find(one, revision, wish.only) for one in wish.ids)
    return next((one for one in found if one is not None), None)


def _order(wish: ModelWish, source: Source) -> FetchOrder:
    """The id that the model has on that hub. Raises Refusal where none is known."""
    from gonogo.runtimes.checkpoint_reading import RepositoryError
    from gonogo.runtimes.fetch_plan import FetchOrder
    from gonogo.runtimes.hub_dialects import ModelScope, dialect_of

    try:
        elsewhere = isinstance(dialect_of(source.endpoint), ModelScope)
    except RepositoryError as error:
        values = {"option": "--from", "words": error.problem.detail, "command": "gonogo models fetch"}
        raise Refusal("OptionMistaken", WRONG_INPUT, values) from None
    model = wish.modelscope if elsewhere else wish.hugging_face
    if model is None:
        values = {"model": wish.command, "hub": "ModelScope" if elsewhere else "Hugging Face"}
        raise Refusal("ModelIdNotKnownThere", WRONG_INPUT, {**values, "source": source.given})
    return FetchOrder(model=model, revision=source.revision, endpoint=source.endpoint, only=wish.only)


def _hugging_face(source: Source) -> bool:
    return source.endpoint is None


def _again(wish: ModelWish, source: Source) -> str:
    options = [f"--from {source.given}"] if source.given else []
    options += [f"--revision {source.revision}"] if source.revision else []
    return " ".join(("gonogo models fetch", wish.command, *options))


def _planned(session: Session, store: ModelStore, order: FetchOrder) -> FetchPlan:
    from gonogo.runtimes.fetch_plan import plan_fetch

    with Progress(session) as progress:
        progress.step("progress.asking_hub", model=order.model)
        return plan_fetch(store, order)


def _fetch(session: Session, store: ModelStore, plan: FetchPlan) -> tuple[Fetched, bool]:
    from gonogo.runtimes.fetch import fetch_model

    with Progress(session) as shown:
        pace = _Pace(session, shown, plan)
        model = plan.order.model
        return fetch_model(store, plan, pace.there, waiting=lambda: shown.step("models.waiting", model=model))


class _Pace:
    """Turns how many bytes are there into a line: how much, how fast over the last seconds, how much longer."""

    def __init__(self, session: Session, shown: Progress, plan: FetchPlan) -> None:
        self._session, self._shown, self._plan = session, shown, plan
        self._seen: deque[tuple[float, int]] = deque()
        self._begun_at = time.monotonic()

    def there(self, have_bytes: int) -> None:
        now, all_bytes = time.monotonic(), self._plan.size_bytes
        self._seen.append((now, have_bytes))
        while now - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()
        if now - self._begun_at < QUIET_S:
            return
        then, had = self._seen[0]
        rate = (have_bytes - had) / (now - then) if now > then and have_bytes > had else None
        if have_bytes >= all_bytes:
            self._shown.moving("models.verifying", size=size_text(all_bytes))
            return
        left = None if rate is None else duration_text(self._session, (all_bytes - have_bytes) / rate)
        values = {"have": size_text(have_bytes), "size": size_text(all_bytes), "left": left}
        rate_text = None if rate is None else f"{size_text(rate)}/s"
        percent = have_bytes * 100 // all_bytes
        self._shown.moving("models.fetching", **values, rate=rate_text, percent=percent)


def _interrupted(session: Session, store: ModelStore, plan: FetchPlan, command: str) -> Refusal:
    from gonogo.runtimes.fetch_kept import kept_of

    kept = kept_of(store, plan.name, plan.wanted)
    changed = session.told("models.kept", have=size_text(kept), size=size_text(plan.size_bytes))
    values = {"changed": changed, "next": session.told("models.go_on", command=command), "kept_bytes": kept}
    return Refusal("Interrupted", INTERRUPTED, values)


def _in_place(session: Session, wish: ModelWish) -> Fetched:
    """A folder of the user's: judged by its configuration and headers, used where it lies, never copied."""
    from gonogo.checks.model import reason_of
    from gonogo.facts.families import FAMILIES
    from gonogo.facts.judge_checkpoint import problems_of
    from gonogo.runtimes.checkpoint_folder import read_folder

    assert wish.folder is not None
    with Progress(session) as progress:
        progress.step("progress.reading_model", model=str(wish.folder))
        seen = read_folder(wish.folder)
    problems = problems_of(seen, FAMILIES)
    if problems:
        values: dict[str, Any] = {"asked": wish.command, "path": seen.source, "detail": problems[0].detail}
        fault = ModelFault(reason_of(problems[0]), {**values, "kind": problems[0].kind})
        raise Refusal(fault.reason, exit_code_of(fault), values)
    files = seen.files or ()
    return Fetched(
        name=wish.folder.name,
        path=wish.folder,
        model=wish.command,
        source=str(wish.folder),
        revision=None,
        commit=seen.commit,
        only=(),
        files=files,
        size_bytes=sum(file.size_bytes or 0 for file in files),
        fetched_at=seen.seen_at,
    )
