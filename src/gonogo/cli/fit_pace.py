"""The lines of `gonogo fit` about speed and price."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping

if TYPE_CHECKING:
    from gonogo.cli.session import Session

Plain = Mapping[str, Any]


def print_pace(session: Session, pace: Plain | None, cards: int) -> None:
    """First token, between tokens, tokens per second, alone and under load; then what the cards cost."""
    from rich.table import Table

    session.line()
    if pace is None:
        session.out.print(session.told("fit.pace.unknown"), markup=False)
        return
    head = session.told("fit.pace", prompt=pace["prompt_tokens"], answer=pace["answer_tokens"])
    session.out.print(head, style="bold", markup=False)
    table = Table(box=None, padding=(0, 2, 0, 2), show_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("ttft", "itl", "rate"):
        table.add_column(session.told(f"fit.pace.{name}"), justify="right", no_wrap=True)
    table.add_row(session.told("fit.pace.alone"), *_numbers(pace["alone"]))
    loaded = pace["loaded"]
    if loaded["concurrent_requests"] > 1:
        table.add_row(session.told("fit.pace.loaded", count=loaded["concurrent_requests"]), *_numbers(loaded))
    session.out.print(table)
    if pace["alone"]["ttft_ms"] is None:
        _indented(session, session.told("fit.pace.no_ttft"), "dim")
    _kept(session, pace["kept"])
    measured = session.told("fit.pace.measured", level=pace["loaded"]["measured_on"])
    _indented(session, measured, "dim")
    for name in ("on_demand", "spot"):
        price = pace[f"price_{name}"]
        if price is not None and not _dearer(pace, name):
            span = price["usd_per_million_output"]
            words = {"hour": price["usd_per_hour"], "low": span["low"], "high": span["high"], "date": price["date"]}
            seller = price["source"].split(",")[0]
            _indented(session, session.told(f"fit.price.{name}", seller=seller, cards=cards, **words))


def _kept(session: Session, kept: Plain | None) -> None:
    """How many replicas keep what was promised, where something was."""
    if kept is None:
        return
    if kept["broken"] is not None:
        _indented(session, session.told("fit.pace.broken", what=session.told(f"fit.pace.{kept['broken'][:-3]}")), "red")
    else:
        _indented(session, session.told("fit.pace.kept", **kept))


def _dearer(pace: Plain, name: str) -> bool:
    """Whether it is a spot price above the price on demand (two sellers): nobody would take it. `--json` has it."""
    on_demand, price = pace["price_on_demand"], pace[f"price_{name}"]
    return name == "spot" and on_demand is not None and bool(price["usd_per_hour"] >= on_demand["usd_per_hour"])


def _indented(session: Session, text: str, style: str = "") -> None:
    from rich.padding import Padding
    from rich.text import Text

    session.out.print(Padding(Text(text, style=style), (0, 0, 0, 2)))


def _numbers(speed: Plain) -> tuple[str, str, str]:
    ttft, itl, rate = speed["ttft_ms"], speed["itl_ms"], speed["output_tokens_per_s"]
    first = "–" if ttft is None else f"{_short(ttft['low'] / 1e3)}–{_short(ttft['high'] / 1e3)} s"
    return first, f"{_short(itl['low'])}–{_short(itl['high'])} ms", f"{_short(rate['low'])}–{_short(rate['high'])}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"
