"""Our capacity plan beside what engines printed.

    .venv/bin/python benchmarks/capacity.py [--rows FILE] [--models FILE] [--json] [--each]

Rows and models are files in the format of the facts folder's `capacity/SCHEMA.md`. Per engine, version range and class
of model: mean, median, 90th percentile and maximum of the absolute error in weights and in cache (blocks, or tokens
where a log has no blocks), in-sample and with the constants refitted without the row's model; how many rows that failed
were said to fit, and how many that ran were said not to. The peer in the same run is the rule of thumb that others plan
by: weights × 1.2 + 2 GiB. It judges by its aims and says which are missed. Exit code 2: a file cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, median
from typing import Any, Iterable, Mapping, Sequence

try:
    import gonogo
except ImportError:
    sys.exit("benchmarks/capacity.py needs gonogo's own environment: .venv/bin/python benchmarks/capacity.py")

from capacity_rows import RowResult, evaluate
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

ROOT = Path(gonogo.__file__).resolve().parents[2]
FACTS = ROOT.parent / "shared" / "facts" / "capacity"
WRONG_INPUT = 2


def main() -> int:
    """Evaluate, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, default=FACTS / "ground_truth.jsonl", help="logs, one JSON object a line")
    parser.add_argument("--models", type=Path, default=FACTS / "models.json", help="configurations by key")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output instead of tables")
    parser.add_argument("--each", action="store_true", help="every row, with its numbers")
    given = parser.parse_args()
    try:
        rows = [json.loads(line) for line in given.rows.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{given.rows}: one JSON object a line was expected")
        given_models = given.models.is_file() or given.models != FACTS / "models.json"
        models = json.loads(given.models.read_text(encoding="utf-8")) if given_models else {}
        if not isinstance(models, dict):
            raise ValueError(f"{given.models}: one JSON object with the models by key was expected")
    except (OSError, ValueError) as error:
        print(f"capacity.py: {error}\n  → --rows FILE --models FILE, in the format of SCHEMA.md", file=sys.stderr)
        return WRONG_INPUT
    results, left_out = evaluate(rows, models), evaluate(rows, models, leave_out=True)
    summary = summarize(results, left_out)
    if given.json:
        print(json.dumps({**summary, "rows": [_plain(result) for result in results]}, ensure_ascii=False))
    else:
        show(summary, results if given.each else ())
    return 0


def summarize(results: Sequence[RowResult], left_out: Sequence[RowResult]) -> dict[str, Any]:
    """All the numbers that are printed. Errors are fractions: 0.01 is 1 %."""
    tables = []
    for quantity in ("weights", "activation", "kv"):
        for engine, era, kind in _slices(results):
            ours = _errors(results, quantity, engine, era, kind)
            if ours:
                tables.append(
                    {
                        **{"quantity": quantity, "engine": engine, "version": era, "class": kind},
                        **_spread(ours),
                        "leave_one_model_out": _spread(_errors(left_out, quantity, engine, era, kind)),
                    }
                )
    thumb = [abs(one.thumb_error) for one in results if one.thumb_error is not None]
    failed = [one for one in results if one.judged and one.outcome == "failed"]
    ran = [one for one in results if one.judged and one.outcome == "ok"]
    return {
        "tables": tables,
        "rule_of_thumb_cache": _spread(thumb),
        "failed_rows": len(failed),
        "false_fits": [one.id for one in failed if one.false_fit],
        "ok_rows": len(ran),
        "false_noes": [one.id for one in ran if one.false_no],
        "left_out": [{"id": one.id, "why": one.skipped} for one in results if one.skipped],
        "aims": _aims(results, failed, ran),
    }


def _aims(results: Sequence[RowResult], failed: Sequence[RowResult], ran: Sequence[RowResult]) -> list[dict[str, Any]]:
    weights = _errors(results, "weights", None, None, None)
    new = _errors(results, "kv", "vllm", ">=0.17", None)
    old = [
        abs(one.numbers["kv"].error)
        for one in results
        if "kv" in one.numbers and one.engine == "vllm" and one.era == "<0.17" and one.known_flags
    ]
    wrong_fits = float(sum(one.false_fit for one in failed)) if failed else None
    wrong_noes = sum(one.false_no for one in ran) / len(ran) if ran else None
    return [
        _aim("weights: mean absolute error", mean(weights) if weights else None, 0.01),
        _aim("KV cache, vLLM >= 0.17: mean absolute error", mean(new) if new else None, 0.02),
        _aim("KV cache, vLLM >= 0.17: 90th percentile", _quantile(new, 0.9) if new else None, 0.04),
        _aim("KV cache, vLLM < 0.17, flags known: mean absolute error", mean(old) if old else None, 0.05),
        _aim("rows that failed and were said to fit", wrong_fits, 0.0),
        _aim("rows that ran and were said not to: share", wrong_noes, 0.02),
    ]


def _aim(what: str, measured: float | None, limit: float) -> dict[str, Any]:
    """`met` is None where no row says anything about it."""
    return {"aim": what, "measured": measured, "limit": limit, "met": None if measured is None else measured <= limit}


def _slices(results: Iterable[RowResult]) -> list[tuple[str, str, str | None]]:
    """(engine, version range, class), with one line for all classes after its classes."""
    found = sorted({(one.engine, one.era, one.model_class) for one in results if one.model_class})
    every = sorted({(engine, era) for engine, era, _ in found})
    return [
        line
        for engine, era in every
        for line in [*(one for one in found if one[:2] == (engine, era)), (engine, era, None)]
    ]


def _errors(
    results: Iterable[RowResult], quantity: str, engine: str | None, era: str | None, kind: str | None
) -> list[float]:
    return [
        abs(one.numbers[quantity].error)
        for one in results
        if quantity in one.numbers
        and engine in (None, one.engine)
        and era in (None, one.era)
        and kind in (None, one.model_class)
    ]


def _spread(errors: Sequence[float]) -> dict[str, Any]:
    if not errors:
        return {"n": 0}
    return {
        "n": len(errors),
        "mean": mean(errors),
        "median": median(errors),
        "p90": _quantile(errors, 0.9),
        "max": max(errors),
    }


def _quantile(errors: Sequence[float], part: float) -> float:
    ordered = sorted(errors)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def show(summary: Mapping[str, Any], each: Sequence[RowResult]) -> None:
    """The tables for people."""
    out = Console(highlight=False, width=118)
    for quantity, title in (
        ("weights", "Weights: planned against printed, absolute error"),
        ("activation", "Activation peak (vLLM)"),
        ("kv", "KV cache, blocks or tokens, from configuration and flags alone"),
    ):
        table = Table(title=title, box=SIMPLE, title_justify="left")
        for column in ("engine", "version", "class", "n", "mean", "median", "p90", "max", "LOO mean", "LOO max"):
            table.add_column(column, justify="left" if column in ("engine", "version", "class") else "right")
        for line in summary["tables"]:
            if line["quantity"] == quantity:
                loo = line["leave_one_model_out"]
                style = "bold" if line["class"] is None else None
                numbers = [_percent(line[name]) for name in ("mean", "median", "p90", "max")]
                beside = [_percent(loo.get("mean")), _percent(loo.get("max"))]
                name = line["class"] or "all"
                table.add_row(line["engine"], line["version"], name, str(line["n"]), *numbers, *beside, style=style)
        out.print(table)
    thumb = summary["rule_of_thumb_cache"]
    if thumb["n"]:
        out.print(
            f"The peer: weights × 1.2 + 2 GiB misses the cache by {_percent(thumb['mean'])} on average "
            f"({_percent(thumb['median'])} median, {_percent(thumb['max'])} at most, {thumb['n']} rows)."
        )
    out.print("The best published tool (llm-d-planner 0.3.3, its own 49 runs): 7.82 % mean.")
    out.print(
        f"\n{summary['failed_rows']} rows failed, {len(summary['false_fits'])} of them said to fit"
        f" {summary['false_fits'] or ''}; {summary['ok_rows']} rows ran, {len(summary['false_noes'])} said not to fit"
        f" {summary['false_noes'] or ''}."
    )
    out.print(f"{len(summary['left_out'])} rows left out:")
    for reason in sorted({one["why"] for one in summary["left_out"]}):
        ids = [one["id"] for one in summary["left_out"] if one["why"] == reason]
        out.print(f"  {len(ids)}: {reason} ({', '.join(ids)})")
    for aim in summary["aims"]:
        measured = "no row says" if aim["measured"] is None else f"{aim['measured']:.4f}"
        sign = {True: "✓", False: "✗", None: "–"}[aim["met"]]
        out.print(f"{sign} {aim['aim']}: {measured} (at most {aim['limit']})")
    for result in each:
        numbers = ", ".join(
            f"{name} {one.planned:.6g}/{one.printed:.6g} {one.error:+.2%}" for name, one in result.numbers.items()
        )
        fit = result.fit.value if result.fit is not None else result.skipped
        out.print(f"{result.id}  {result.engine} {result.era} {result.outcome}: {fit}; {numbers}", soft_wrap=True)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _plain(result: RowResult) -> dict[str, Any]:
    return {
        "id": result.id,
        "engine": result.engine,
        "version": result.era,
        "class": result.model_class,
        "outcome": result.outcome,
        "fit": result.fit.value if result.fit is not None else None,
        "judged": result.judged,
        "skipped": result.skipped,
        "numbers": {
            name: {"planned": one.planned, "printed": one.printed, "error": one.error}
            for name, one in result.numbers.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
