"""How models that were fetched, and a fetch before it begins, are shown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Sequence

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.runtimes.fetch_plan import FetchPlan
    from gonogo.runtimes.models import Fetched, ModelStore, Unfinished

KIB = 1024
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(size_bytes: float) -> str:
    """`17.9 GiB`, `50.2 MiB`: the same in both languages."""
    size, unit = float(size_bytes), 0
    while size >= KIB and unit + 1 < len(UNITS):
        size, unit = size / KIB, unit + 1
    return f"{size:.0f} {UNITS[unit]}" if unit == 0 else f"{size:.1f} {UNITS[unit]}"


def duration_text(session: Session, seconds: float) -> str:
    """Seconds below two minutes, then minutes, rounded up."""
    if seconds < 120:
        return session.told("models.seconds", seconds=max(1, math.ceil(seconds)))
    return session.told("models.minutes", minutes=math.ceil(seconds / 60))


def plan_lines(session: Session, plan: FetchPlan, store: ModelStore) -> list[str]:
    """What a user should know before anything is fetched."""
    kept = size_text(plan.kept_bytes) if plan.kept_bytes else None
    sizes = {"files": len(plan.files), "size": size_text(plan.size_bytes), "kept": kept}
    lines = [
        session.told("models.will_fetch", model=plan.order.model, commit=plan.commit[:12], source=plan.source),
        session.told("models.will_take", **sizes),
        session.told("models.will_lie", path=str(store.path(plan.name)), free=size_text(plan.free_bytes)),
    ]
    if plan.seconds is not None and plan.bytes_per_s is not None:
        rate = f"{size_text(plan.bytes_per_s)}/s"
        lines.append(session.told("models.will_last", time=duration_text(session, plan.seconds), rate=rate))
    return lines


def fetched_lines(session: Session, model: Fetched) -> list[str]:
    """Where a model lies and what it is."""
    commit = (model.commit or "")[:12] or None
    shown = session.told("models.is", model=model.model, commit=commit, size=size_text(model.size_bytes))
    return [shown, str(model.path)]


def models_table(session: Session, found: Sequence[Fetched], begun: Sequence[tuple[Unfinished, int]]) -> Any:
    """One line for each model, the unfinished ones with what is kept of them."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for name in ("name", "model", "size"):
        table.add_column(
            session.told(f"models.column.{name}"), justify="right" if name == "size" else "left", overflow="fold"
        )
    for one in found:
        table.add_row(one.name, one.model, size_text(one.size_bytes))
    for unfinished, kept in begun:
        sizes = {"have": size_text(kept), "size": size_text(unfinished.size_bytes)}
        table.add_row(unfinished.name, unfinished.model, session.told("models.begun", **sizes))
    return table


def plain_model(model: Fetched) -> dict[str, Any]:
    """For `--json`."""
    return {
        "name": model.name,
        "path": str(model.path),
        "model": model.model,
        "source": model.source,
        "revision": model.revision,
        "commit": model.commit,
        "only": list(model.only),
        "size_bytes": model.size_bytes,
        "fetched_at": model.fetched_at,
        "files": [
            {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in model.files
        ],
    }  # fmt: skip


def plain_plan(plan: FetchPlan) -> dict[str, Any]:
    """For `--json`; the time is an estimate."""
    return {
        "model": plan.order.model,
        "source": plan.source,
        "revision": plan.revision,
        "commit": plan.commit,
        "files": [file.name for file in plan.files],
        "size_bytes": plan.size_bytes,
        "kept_bytes": plan.kept_bytes,
        "free_bytes": plan.free_bytes,
        "bytes_per_s": plan.bytes_per_s,
        "seconds": plan.seconds,
    }
